"""Files of pairs into files of scores: a folder at a time, in bounded memory, going on after an interruption::

    from zoo import Reranker
    from zoo.multi import MultiRequest, find_inputs, score_files

    output = Path("scores")
    with Reranker.open("zoo-reranker-tiny") as reranker:
        result = score_files(reranker, find_inputs(["tables"], output), MultiRequest(output=output))

``zoo run --mode multi`` does the same.
"""

from __future__ import annotations

from zoo.multi.inputs import InputFile as InputFile
from zoo.multi.inputs import find_inputs as find_inputs
from zoo.multi.rows import Columns as Columns
from zoo.multi.run import FileResult as FileResult
from zoo.multi.run import MultiRequest as MultiRequest
from zoo.multi.run import MultiResult as MultiResult
from zoo.multi.run import score_files as score_files

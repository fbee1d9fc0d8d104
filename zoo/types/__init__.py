"""What crosses the boundaries between the runner, the models, the devices and the export steps.

Data goes one way: weights -> artifact -> session, and pairs -> encodings -> inputs -> outputs -> scores -> run -> metrics. Nothing
here is mutated once it is made, and nothing here imports more than numpy's type names.
"""

from zoo.types.data import BatchInfo as BatchInfo
from zoo.types.data import Encoding as Encoding
from zoo.types.data import Encodings as Encodings
from zoo.types.data import Pair as Pair
from zoo.types.data import Qrels as Qrels
from zoo.types.data import Run as Run
from zoo.types.data import Scores as Scores
from zoo.types.data import Tensors as Tensors
from zoo.types.devices import Availability as Availability
from zoo.types.devices import Device as Device
from zoo.types.devices import PrecisionInfo as PrecisionInfo
from zoo.types.devices import Session as Session
from zoo.types.devices import SessionOptions as SessionOptions
from zoo.types.devices import ShapeRule as ShapeRule
from zoo.types.export import Artifact as Artifact
from zoo.types.export import Checkpoint as Checkpoint
from zoo.types.export import CheckpointOffer as CheckpointOffer
from zoo.types.export import ExportOffer as ExportOffer
from zoo.types.export import ExportRequest as ExportRequest
from zoo.types.export import Head as Head
from zoo.types.export import Precision as Precision
from zoo.types.export import Step as Step
from zoo.types.export import StepReport as StepReport
from zoo.types.offers import CacheFolder as CacheFolder
from zoo.types.offers import CommandOffer as CommandOffer

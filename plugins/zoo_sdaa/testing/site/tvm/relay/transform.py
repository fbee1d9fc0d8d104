"""``tvm.relay.transform``"""

from zoo_sdaa.testing import compiler

with compiler.as_in(globals(), "tvm.relay.transform"):
    globals().update({name: compiler.relay_pass(name) for name in compiler.PASSES})

"""``tvm.relay.transform``"""

from zoo_sdaa.testing import compiler, versions

with versions.as_in(globals(), "tvm.relay.transform"):
    globals().update({name: compiler.relay_pass(name) for name in compiler.PASSES})

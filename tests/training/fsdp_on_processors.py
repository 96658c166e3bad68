"""The command line with sharded training on processors, where accelerate would share a whole model out (DDP).

accelerate shards models on accelerators alone. What torch shards with works over gloo too, so that all of our part of
it can be tried without one: accelerate is told that its processors are GPUs.
"""

import accelerate.state

_original = accelerate.state.PartialState.__init__


def _pretend(self, *arguments, **settings):
    _original(self, *arguments, **settings)
    if self.distributed_type == accelerate.state.DistributedType.MULTI_CPU:
        self.distributed_type = accelerate.state.DistributedType.MULTI_GPU


accelerate.state.PartialState.__init__ = _pretend

if __name__ == "__main__":
    from mutbert.cli.main import run

    run()

"""The command line with sharded training over gloo: accelerate, which shards on accelerators alone, sees GPUs."""

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

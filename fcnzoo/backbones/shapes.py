"""The shape of every tensor in a traced network."""

from __future__ import annotations

from torch import Tensor, fx


class NodeShapes(fx.Interpreter):
    """Runs a traced network and keeps the shape of every tensor.

    (`torch.fx.passes.shape_prop` does so too, but prints a traceback where a network does not run.)
    """

    def of(self, image: Tensor) -> dict[fx.Node, tuple[int, ...]]:
        """Return the shapes by node for one input, on the meta device, say."""
        self._found: dict[fx.Node, tuple[int, ...]] = {}
        self.run(image)
        return self._found

    def run_node(self, n: fx.Node) -> object:
        """Run one node and keep the shape of what it gives."""
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self._found[n] = tuple(result.shape)
        return result

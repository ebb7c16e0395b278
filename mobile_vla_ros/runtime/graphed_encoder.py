"""The encoding of one frame as a CUDA graph: one launch instead of over a thousand."""

import torch

from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.model.network import VlaNetwork

TEXT_TOKENS = 64  # room for the instruction; a causal model cannot see the padding behind it
WARM_UP = 3  # runs before the capture, in which libraries choose their kernels


class GraphedEncoder:
    """
    `VlaNetwork.encode` for one frame with fixed shapes, captured once and replayed.

    On a CPU the same steps run without a graph.

    :param side: height and width of the pixels.
    :raises UserError: when the GPU or a library cannot capture it.
    """

    @torch.no_grad()
    def __init__(self, network: VlaNetwork, side: int) -> None:
        device, dtype = network.action_token.device, network.kosmos.dtype
        self._network = network
        self._pixels = torch.zeros(1, 3, side, side, device=device, dtype=dtype)
        self._ids = torch.zeros(1, TEXT_TOKENS, dtype=torch.long, device=device)
        self._lengths = torch.ones(1, dtype=torch.long, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        try:
            self._feature = self._capture() if device.type == 'cuda' else self._run()
        except RuntimeError as error:
            raise UserError(
                f'no CUDA graph of the policy on {device}',
                got=first_line(error),
                remedy='set cuda_graph:=false',
            ) from error

    @torch.no_grad()
    def __call__(
        self, pixels: torch.Tensor, ids: torch.Tensor, lengths: torch.Tensor
    ) -> torch.Tensor:
        """
        Return the (1, D) feature of a frame.

        :param pixels: (1, 3, S, S), on any device.
        :param ids: (1, L) token ids, L at most ``TEXT_TOKENS``.
        :param lengths: (1,) int64.
        """
        self._pixels.copy_(pixels)
        self._ids[:, : ids.shape[1]].copy_(ids)
        self._lengths.copy_(lengths)
        if self._graph is None:
            self._feature = self._run()
        else:
            self._graph.replay()
        return self._feature.clone()  # the next replay writes to the same place

    def _run(self) -> torch.Tensor:
        return self._network.encode(self._pixels, self._ids, self._lengths)

    def _capture(self) -> torch.Tensor:
        device = self._pixels.device
        with torch.cuda.device(device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    self._run()
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            # Another policy may drive meanwhile, and its thread may allocate.
            with torch.cuda.graph(self._graph, capture_error_mode='thread_local'):
                return self._run()

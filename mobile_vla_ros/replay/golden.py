"""`mobile_vla replay --store-golden`: write a bundle's golden frames from an episode."""

from pathlib import Path

from mobile_vla_ros.errors import UserError


def store(episode: Path, policy: Path | str, instruction: str | None, backbone: str = '') -> Path:
    """
    Replace the golden frames of a bundle, and nothing else in it.

    They are the first window of an episode and the bundle's output for it, computed as in
    training: on the CPU, in float32, with unmerged adapters.

    :param instruction: None: the episode's own.
    :param backbone: folder or hub id of the policy's backbone, instead of the usual places.
    :returns: the file.
    :raises UserError: if the episode has no window, or the bundle cannot be loaded or written.
    """
    from mobile_vla_ros.data.frame_cache import FrameCache
    from mobile_vla_ros.data.preprocess import normalise
    from mobile_vla_ros.data.segments import Sampling, read_episodes
    from mobile_vla_ros.model.builtin import bundle_folder
    from mobile_vla_ros.model.bundle import load_bundle
    from mobile_vla_ros.model.golden import make_golden, write_golden
    from mobile_vla_ros.model.policy_spec import GOLDEN
    from mobile_vla_ros.types import VERDICTS

    loaded = load_bundle(policy, merge=False, backbone=backbone)
    spec, folder = loaded.spec, bundle_folder(policy)
    found = read_episodes(
        [episode],
        Sampling.of(spec),
        VERDICTS,
    )
    if not found.segments:
        raise UserError(
            f'{episode} has no window for golden frames',
            got=found.skipped[str(episode)].rstrip('.'),
            remedy='use another episode',
        )
    segment = found.segments[0]
    frames = FrameCache(spec.image).frames(segment, segment.windows[0])
    golden = make_golden(
        loaded.network,
        loaded.tokenizer,
        spec,
        frames,
        normalise(frames, spec.image),
        instruction or segment.instruction,
    )
    try:
        write_golden(folder, golden)
    except OSError as error:
        raise UserError(
            f'cannot write the golden frames into {folder}',
            got=error.strerror,
            expected='a writable bundle',
            remedy='copy the folder and use the copy',
        ) from error
    return folder / GOLDEN

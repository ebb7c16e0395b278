"""`mobile_vla replay --store-golden`: write golden frames for a bundle, from an episode."""

from pathlib import Path

from mobile_vla_ros.errors import UserError


def store(episode: Path, policy: Path, instruction: str | None) -> Path:
    """
    Write the golden frames of a bundle anew, and nothing else of it.

    They are the first window of an episode, and the bundle's output for it here and now: on the
    CPU, in single precision, with its adapters unmerged, as training writes them.

    :param instruction: None: the episode's own.
    :returns: the file.
    :raises UserError: when the episode has no window, or the bundle cannot be loaded or written.
    """
    from mobile_vla_ros.data.frame_cache import FrameCache
    from mobile_vla_ros.data.preprocess import normalise
    from mobile_vla_ros.data.segments import Sampling, read_episodes
    from mobile_vla_ros.model.builtin import bundle_folder
    from mobile_vla_ros.model.bundle import load_bundle
    from mobile_vla_ros.model.golden import GOLDEN, make_golden, write_golden
    from mobile_vla_ros.types import VERDICTS

    loaded = load_bundle(policy, merge=False)
    spec, folder = loaded.spec, bundle_folder(policy)
    found = read_episodes(
        [episode],
        Sampling(spec.rate_hz, spec.window, spec.chunk, spec.command_max_age_s),
        VERDICTS,
    )
    if not found.segments:
        raise UserError(
            f'{episode} gives no golden frames',
            got=found.skipped[str(episode)].rstrip('.'),
            remedy='use another episode',
        )
    run = found.segments[0]
    frames = FrameCache(spec.image).frames(run, slice(0, spec.window))
    golden = make_golden(
        loaded.network,
        loaded.tokenizer,
        spec,
        frames,
        normalise(frames, spec.image),
        instruction or run.instruction,
    )
    try:
        write_golden(folder, golden)
    except OSError as error:
        raise UserError(
            f'the golden frames cannot be written into {folder}',
            got=error.strerror,
            expected='a bundle that is yours to write',
            remedy='copy the folder, and give the copy',
        ) from error
    return folder / GOLDEN

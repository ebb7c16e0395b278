"""Run the drill's node as a process, and collect its rows."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mobile_vla_ros.bringup.domain import isolated
from mobile_vla_ros.bringup.processes import ProcessEnded, Processes
from mobile_vla_ros.bringup.spec import NodeSpec, check_common
from mobile_vla_ros.errors import UserError

START_S, FAULT_S = 180.0, 90.0
NODE, EXECUTABLE = 'drill', 'drill_node'


def run(
    policy: str,
    faults: Sequence[str],
    params_file: str,
    folder: Path,
    add: Callable[[dict], None],
) -> None:
    """
    Run the drill's node; it has ended when this returns.

    :param policy: bundle, or a built-in one by name.
    :param faults: names from ``catalog``.
    :param params_file: parameters for guard, inference and arena; '' for none.
    :param folder: of the nodes' logs.
    :param add: called with each row as the node reports it.
    :raises UserError: for a policy or a file that cannot be used, or when a node ends early.
    """
    check_common({'params_file': params_file or None})  # before torch is imported
    from mobile_vla_ros.model.builtin import bundle_folder
    from mobile_vla_ros.model.policy_spec import read_spec

    read_spec(Path(policy))
    node = NodeSpec(
        NODE,
        EXECUTABLE,
        parameters={
            'policy': str(bundle_folder(policy).resolve()),
            'log': str(folder),
            'params_file': str(Path(params_file).resolve()) if params_file else '',
            'faults': ','.join(faults),
        },
    )
    count = 0
    with Processes(folder, isolated()) as processes:
        processes.start(node, finite=True)
        drill = processes[NODE]

        def collect() -> None:
            nonlocal count
            for row in drill.json_lines()[count:]:
                count += 1
                add(row)

        try:
            processes.wait(NODE, START_S + FAULT_S * len(faults), collect)
        except (ProcessEnded, TimeoutError) as error:
            collect()
            _, _, sentence = drill.log.read_text(errors='replace').partition(
                f'{EXECUTABLE}: error: '
            )
            what = (sentence or str(error)).strip().rstrip('.')
            raise UserError(f'the drill stopped: {what}') from error

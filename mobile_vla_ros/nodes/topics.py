"""What the graph says of a topic, in words: types that do not fit, publishers too many."""

from collections.abc import Collection, Sequence


def camera_problem(topic: str, publishers: Sequence, expected: str) -> str:
    """
    Return what keeps a camera from being heard, '' when nothing does.

    :param publishers: TopicEndpointInfo of each (``get_publishers_info_by_topic``).
    :param expected: the type that is listened for.
    """
    types = sorted({info.topic_type for info in publishers})
    if not types:
        return f'no camera: nobody publishes {topic}'
    if expected not in types:
        return (f'the camera topic {topic} has the wrong type: got {", ".join(types)}; expected '
                f'{expected}; set image_transport or remap camera/image_raw')
    return ''


def command_type(topic: str, publishers: Sequence, known: Collection[str]) -> tuple[str, str]:
    """
    Find out the type of the commands.

    :param known: the types that can be heard.
    :returns: the type, '' while there is none; what is wrong in words, '' when nothing is.
    """
    types = sorted({info.topic_type for info in publishers})
    fitting = [name for name in types if name in known]
    if not types:
        return '', f'no command yet: nobody publishes {topic}'
    if not fitting:
        return '', (f'the command topic {topic} has the wrong type: got {", ".join(types)}; '
                    f'expected {" or ".join(known)}')
    if len(publishers) > 1:
        names = sorted(f'{info.node_namespace.rstrip("/")}/{info.node_name}'
                       for info in publishers)
        return fitting[0], f'{len(publishers)} publishers on {topic}: {", ".join(names)}'
    return fitting[0], ''

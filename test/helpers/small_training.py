"""The command line of a training run on the small backbone."""


def small_run_flags(backbone, episodes, out, **settings) -> list[str]:
    """Return the arguments of `mobile_vla train`, with more settings or others."""
    settings = {
        'backbone': backbone,
        'data': episodes,
        'out': out,
        'device': 'cpu',
        'lora_r': 2,
        'head_hidden': 16,
        'head_layers': 1,
        'learning_rate': 0.001,
        **settings,
    }
    return [word for name, value in settings.items() for word in (f'--{name}', str(value))]

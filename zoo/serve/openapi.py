"""stub"""


def description() -> dict[str, object]:
    return {}

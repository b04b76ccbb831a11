import click


@click.command("compare")
def compare() -> None:
    """Compare."""

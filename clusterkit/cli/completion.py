"""`clusterkit completion`: the script that lets a shell complete commands, options and paths."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion", short_help="Print the shell completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    r"""Print the completion script of SHELL.

    \b
    bash: clusterkit completion bash > ~/.local/share/bash-completion/completions/clusterkit
    zsh:  clusterkit completion zsh > ~/.zfunc/_clusterkit
          (with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc)
    fish: clusterkit completion fish > ~/.config/fish/completions/clusterkit.fish

    A new shell then completes `clusterkit clu<TAB>`.
    """
    from clusterkit.cli import boundary, root

    script = get_completion_class(shell)
    if script is None:
        raise click.UsageError(f"there is no completion for {shell}")
    click.echo(script(root, {}, "clusterkit", boundary.COMPLETION_VARIABLE).source())

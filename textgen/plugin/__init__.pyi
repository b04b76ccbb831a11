# The public names: a type checker reads them here, and textgen.lazy where each is imported from.

from textgen.plugin.component import COMMANDS as COMMANDS
from textgen.plugin.component import HOOKS as HOOKS
from textgen.plugin.component import Plugin as Plugin
from textgen.plugin.component import RemoteName as RemoteName
from textgen.plugin.configured import plain as plain
from textgen.plugin.discovery import requirements as requirements
from textgen.plugin.discovery import version as version
from textgen.plugin.nested_tables import flat as flat
from textgen.plugin.nested_tables import merged as merged
from textgen.plugin.strict_json import COUNT as COUNT
from textgen.plugin.strict_json import from_json as from_json
from textgen.plugin.wording import phrase as phrase

__all__: list[str]

# The public names: a type checker reads them here, and textgen.lazy where each is imported from.

from textgen.cli.app import main as main
from textgen.cli.options import PAGE_MARK as PAGE_MARK
from textgen.cli.options import check_page as check_page
from textgen.cli.options import device_option as device_option
from textgen.cli.options import json_option as json_option
from textgen.cli.options import set_option as set_option
from textgen.cli.options import write_page as write_page
from textgen.cli.request_options import parse_value as parse_value
from textgen.cli.terminal import print_text as print_text

__all__: list[str]

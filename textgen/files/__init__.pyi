# The public names: a type checker reads them here, and textgen.lazy where each is imported from.

from textgen.files.cache import Cache as Cache
from textgen.files.cache import CacheEntry as CacheEntry
from textgen.files.cache import cache_directory as cache_directory
from textgen.files.cache import converted_models as converted_models
from textgen.files.cache import downloads as downloads
from textgen.files.cache import encoded_texts as encoded_texts
from textgen.files.durable import append as append
from textgen.files.durable import new_file as new_file
from textgen.files.durable import rename as rename
from textgen.files.durable import write_atomic as write_atomic
from textgen.files.opening import inside as inside
from textgen.files.opening import is_special as is_special
from textgen.files.opening import opened as opened
from textgen.files.reading import MAX_BYTES as MAX_BYTES
from textgen.files.reading import read_bytes as read_bytes
from textgen.files.reading import read_json as read_json

__all__: list[str]

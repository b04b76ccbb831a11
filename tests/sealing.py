"""What a stranger does who means harm: files with other content and the checksums that fit it."""

import contextlib
import hashlib
import json

SECRET = "the owner's secret"


def seal(path, run):
    """Put the checksum of a spoilt file where the run has that of the file, as somebody does it who
    means harm.
    """
    in_checkpoint = path.parent.parent.name == "checkpoints"
    holder = path.parent / "manifest.json" if in_checkpoint else run / "run.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        record = json.loads(holder.read_bytes())
        if path.name in record["files"]:
            record["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        if record.pop("checksum", None) is not None:
            text = json.dumps(record, sort_keys=True, separators=(",", ":"))
            record["checksum"] = hashlib.sha256(text.encode()).hexdigest()
        holder.write_text(json.dumps(record))

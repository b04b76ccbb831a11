"""Writes the adapter of a run for the package: python export.py RUN FOLDER.

As `textgen huggingface-export RUN FOLDER --adapter`, without what peft does not need, in half
precision, and with the base's name on the Hub in place of its path.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
KEPT = ("peft_type", "task_type", "r", "lora_alpha", "target_modules")


def main() -> None:
    """Write adapter_config.json and adapter_model.safetensors."""
    run, folder = sys.argv[1:]
    subprocess.run(["textgen", "huggingface-export", run, folder, "--adapter"], check=True)
    config, weights = (Path(folder, f"adapter_{n}") for n in ("config.json", "model.safetensors"))
    facts = json.loads(config.read_text(encoding="utf-8"))
    facts = {"base_model_name_or_path": BASE, **{key: facts[key] for key in KEPT}}
    facts["target_modules"] = sorted(facts["target_modules"])
    config.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    halved = {name: each.astype(np.float16) for name, each in load_file(weights).items()}
    save_file(halved, weights, {"format": "pt"})
    for path in Path(folder).glob("tokenizer*.json"):
        path.unlink()


if __name__ == "__main__":
    main()

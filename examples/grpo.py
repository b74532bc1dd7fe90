"""GRPO on the personal rewards of a run: a LoRA policy for some of its users, each prompt asked for each of them.

pip install 'copl[align]'
python examples/grpo.py my-run --user ann --user bob --prompts prompts.txt --steps 1 --out policy
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer

from copl import Model
from copl.align.policies.rows import plain_prompt
from copl.align.policies.writer import Writer
from copl.data.chat import messages_of
from copl.reward.backbones.language_models import language_model_directory


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and write the adapter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--policy", default="smollm2-135m", help="language model: by name, Hugging Face id or path")
    parser.add_argument("--user", action="append", required=True)
    parser.add_argument("--prompts", type=Path, required=True, help="a prompt a line")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--group", type=int, default=4, help="completions to each prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of a completion at most")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    directory = language_model_directory(args.policy)
    chat = Writer.open(args.policy).chat
    asked = [line for line in args.prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
    rows = [
        {
            "prompt": [{"role": "user", "content": prompt}] if chat else plain_prompt(messages_of(prompt)),
            "asked": prompt,
            "user_id": user,
        }
        for prompt in asked
        for user in args.user
    ]
    personal = Model.open(args.run).reward_function(calibrated=True)

    def personal_reward(completions: Sequence[Any], asked: Sequence[str], user_id: Sequence[str], **_: Any) -> Any:
        return personal(prompts=asked, completions=completions, user_id=user_id)  # not as the policy's template has it

    options = GRPOConfig(
        output_dir=str(args.out),
        max_steps=args.steps,
        per_device_train_batch_size=args.group,
        num_generations=args.group,
        max_completion_length=args.tokens,
        learning_rate=1e-5,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=not torch.cuda.is_available(),
        bf16=torch.cuda.is_available(),
    )
    trainer = GRPOTrainer(
        str(directory),
        reward_funcs=personal_reward,
        args=options,
        train_dataset=Dataset.from_list(rows),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    )
    trainer.train()
    trainer.save_model(str(args.out))


if __name__ == "__main__":
    main()

"""The page beside an exported classifier: how to score with it, as code that runs without `copl`."""

from __future__ import annotations

from copl.experts.classifier import ClassifierForm
from copl.reward.backbones.loaded import LoadedBackbone

_INPUTS = {
    "chat": """messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, date_string="26 Jul 2024")
    inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")""",
    "pair": """texts = [prompt, response] if prompt else [response]
    inputs = tokenizer(*texts, return_tensors="pt")""",
    "response": 'inputs = tokenizer(response, return_tensors="pt")',
    "plain": """text = f"Human: {prompt}\\n\\nAssistant: {response}" if prompt else response
    inputs = tokenizer(text, return_tensors="pt")""",
}

_REWARDS = {
    ("SEQ_CLS", "last"): "logits[0, 0]",
    ("TOKEN_CLS", "mean"): "logits[0, :, 0].mean()",
    ("TOKEN_CLS", "last"): "logits[0, -1, 0]",
}

_ADAPTER = """base = json.load(open(here + "/adapter_config.json"))["base_model_name_or_path"]
base = here + "/base" if base == "base" else base
model = {auto_class}.from_pretrained(base, num_labels=1, pad_token_id={pad_id})
model = PeftModel.from_pretrained(model, here).eval()"""

_MERGED = "model = {auto_class}.from_pretrained(here).eval()"


def usage_page(user: str, backbone: LoadedBackbone, form: ClassifierForm, pad_id: int, *, merged: bool) -> str:
    """Return the page.

    Args:
        user: id of the user.
        backbone: its template and pooling decide how texts are joined and logits read.
        form: the classifier.
        pad_id: a padding token that no text ends with.
        merged: whether the adapter is merged into the weights.
    """
    load = (_MERGED if merged else _ADAPTER).format(auto_class=form.auto_class, pad_id=pad_id)
    imports = ["import torch", f"from transformers import AutoTokenizer, {form.auto_class}"]
    if not merged:
        imports = ["import json", "", *imports[:1], "from peft import PeftModel", *imports[1:]]
    code = "\n".join(
        [
            *imports,
            "",
            'here = "."  # this directory',
            load,
            "tokenizer = AutoTokenizer.from_pretrained(here)",
            "",
            "",
            "def reward(prompt, response):",
            f"    {_INPUTS[backbone.template]}",
            "    with torch.no_grad():",
            "        logits = model(**inputs).logits",
            f"    return float({_REWARDS[form.task, backbone.pooling]})",
        ]
    )
    kind = "model" if merged else "PEFT adapter"
    return f"""# Personal reward model of user {user}

An ordinary {kind} for `{form.auto_class}`. It scores a response to a prompt; higher means that the user likes it
more, and only differences between responses have a meaning.

```python
{code}
```
"""

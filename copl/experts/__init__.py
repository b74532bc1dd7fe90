"""The mixture of LoRA experts; the only place that touches PEFT's insides."""

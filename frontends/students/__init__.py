"""Students of Transformers networks: distillation, fine-tuning and adapters."""

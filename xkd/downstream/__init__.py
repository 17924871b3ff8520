"""What pretrained encoders are worth: probes of frozen features, finetuning, and the metrics of both."""

"""Model folders in Hugging Face's layout: ``config`` reads and writes ``config.json``, ``pretrained`` all of them."""

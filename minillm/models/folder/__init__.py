"""Model folders in Hugging Face's layout: ``pretrained`` reads and writes them, ``config`` their
``config.json``.

``fields`` and ``rope`` know what strangers' files say besides.
"""

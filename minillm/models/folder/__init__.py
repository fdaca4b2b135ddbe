"""Model folders in Hugging Face's layout: ``pretrained`` reads them, ``saving`` writes them.

``config`` is about their ``config.json``; ``fields`` and ``rope`` know what strangers' files say
besides.
"""

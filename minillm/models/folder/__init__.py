"""Model folders in Hugging Face's layout: ``pretrained`` reads them, ``saving`` writes them.

``config`` is about their ``config.json``; ``fields`` and ``rope`` know what strangers' files say
besides. ``gguf`` reads llama.cpp's files as such a folder, ``to_gguf`` writes them.
"""

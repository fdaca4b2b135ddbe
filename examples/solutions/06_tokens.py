"""The exercises of lesson 6, solved."""


def joined(word, pair, new):
    """The word with the pair replaced by the new id, everywhere."""
    done = []
    for id in word:
        if done and (done[-1], id) == pair:
            done[-1] = new
        else:
            done.append(id)
    return done


def encode(word, merges):
    """In the order of learning: a later merge may need what an earlier one made."""
    for k, pair in enumerate(merges):
        word = joined(word, pair, 257 + k)
    return word


def waiting(data):
    """Without so many bytes it can be decoded."""
    for held in range(4):
        try:
            data[: len(data) - held].decode()
        except UnicodeDecodeError:
            continue
        return held

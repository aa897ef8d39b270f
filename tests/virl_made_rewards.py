"""train_virl.py with rewards that a tiny random model can earn: it writes no code, so the real ones would all be 0, and
without advantages there is no gradient to compare. Run by test_train.py."""

import sys
import zlib

import reward
import train_virl

reward.alignment = lambda text, language: zlib.crc32(text.encode()) % 100 / 100

if __name__ == "__main__":
    train_virl.main(sys.argv[1:])

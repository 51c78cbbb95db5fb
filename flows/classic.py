"""The header of classic NetCDF files (CDF-1, -2 and -5), as far as it says how large a file is.

The netCDF library reads a missing end as zeros and may crash on a damaged header, so both are looked for before it.
"""

import math
import mmap

from utils import InputError

MAGIC = (b"CDF\x01", b"CDF\x02", b"CDF\x05")
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}  # bytes of a value by its type's number
DIMENSIONS, VARIABLES, ATTRIBUTES = 10, 11, 12  # tags of the lists


def refuse_damaged_classic(path):
    """Raise an InputError for a classic NetCDF file that is shorter than its header says, or has no sound header."""
    with open(path, "rb") as file:
        if file.read(4) not in MAGIC:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            size = len(data)
            try:
                wanted = Header(data).file_size()
            except (ValueError, LookupError) as error:
                raise InputError(f"{path} is truncated or damaged, its header ends too soon; fetch it again") from error
    if wanted > size:
        defect = f"it has {size} bytes of {wanted}" if wanted < math.inf else "its number of frames was never written"
        raise InputError(f"{path} is truncated or damaged: {defect}; fetch it again")


class Header:
    """What a classic header says of sizes.

    Attributes:
        records: entries of the unlimited dimension, infinite if they were never counted (a stream).
        fixed, recorded: ``(begin, bytes)`` of the variables without and with that dimension; of the latter per entry.
    """

    def __init__(self, data):
        self.data, self.at, self.fixed, self.recorded = data, 4, [], []
        self.width = 8 if data[3] == 5 else 4  # of a count
        self.records = self.count()
        if self.records == 2 ** (8 * self.width) - 1:
            self.records = math.inf
        lengths = [self.length() for _ in self.entries(DIMENSIONS)]
        self.skip_attributes()
        for _ in self.entries(VARIABLES):
            self.skip(self.count())
            shape = [lengths[self.count()] for _ in range(self.count())]
            self.skip_attributes()
            value = SIZES[self.integer(4)]
            self.count()  # the size that the writer states, which is capped above 4 GB
            begin = self.integer(4 if data[3] == 1 else 8)
            recorded = shape[:1] == [0]
            (self.recorded if recorded else self.fixed).append((begin, value * math.prod(shape[recorded:])))

    def file_size(self):
        """Bytes up to the last value; padding after it may be left out."""
        ends = [begin + size for begin, size in self.fixed]
        if self.recorded and self.records:
            # entries are padded to four bytes, but those of an only variable
            entry = sum(size + (-size % 4 if len(self.recorded) > 1 else 0) for _, size in self.recorded)
            ends += [begin + (self.records - 1) * entry + size for begin, size in self.recorded]
        return max(ends, default=0)

    def integer(self, width):
        self.at += width
        if self.at > len(self.data):
            raise ValueError("the header ends too soon")
        return int.from_bytes(self.data[self.at - width : self.at], "big")

    def count(self):
        return self.integer(self.width)

    def skip(self, length):
        """Pass over bytes, which are padded to a multiple of four."""
        self.at += length + -length % 4

    def entries(self, tag):
        """The numbers of a list's entries; an empty list may have no tag."""
        found, count = self.integer(4), self.count()
        if found != tag and (found or count):
            raise ValueError(f"list {found} where {tag} is due")
        return range(count)

    def length(self):
        """Length of a dimension, 0 of the unlimited one."""
        self.skip(self.count())
        return self.count()

    def skip_attributes(self):
        for _ in self.entries(ATTRIBUTES):
            self.skip(self.count())
            value = SIZES[self.integer(4)]
            self.skip(value * self.count())

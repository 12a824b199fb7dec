"""A small x86-64 library that answers to the wheels' BLAS names and jumps to MKL's, written without a compiler.

It is what conda-forge's `libblas` is to its packages. The file holds, in this order: the ELF header and the program
headers; symbols, their names, hash table and relocations; the code; then, on a page of its own that can be written, the
dynamic section and the global offset table (GOT), which the dynamic loader fills with the addresses of MKL's routines.

References
----------
System V ABI, chapters 4 and 5 (object files, dynamic linking), and its AMD64 supplement 1.0: 3.2.3 (complex numbers are
returned in xmm0 and xmm1, two floats together in xmm0), 4.4 (relocations).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from clusterkit.environments.blas.symbols import Forward

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_DYNAMIC = struct.Struct("<QQ")

_IDENTITY = b"\x7fELF" + bytes([2, 1, 1])  # 64 bits, little endian, version 1
_ET_DYN, _EM_X86_64 = 3, 62
_PT_LOAD, _PT_DYNAMIC, _PT_GNU_STACK = 1, 2, 0x6474E551
_X, _W, _R = 1, 2, 4
_GLOBAL_FUNCTION = 0x12
_R_X86_64_GLOB_DAT = 6
_DT_NULL, _DT_NEEDED, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_RELA, _DT_RELASZ, _DT_RELAENT = 0, 1, 4, 5, 6, 7, 8, 9
_DT_STRSZ, _DT_SYMENT, _DT_SONAME, _DT_RPATH = 10, 11, 14, 15

_PAGE = 4096
_SEGMENTS = 4
_JUMP_BYTES, _STUB_BYTES = 8, 96


def write(forwards: Iterable[Forward], *, soname: str, needed: str, rpath: str) -> bytes:
    """Return a shared library that exports the names and forwards each call.

    Parameters
    ----------
    forwards : iterable of Forward
        What it exports, and where that goes.
    soname : str
        The name by which other libraries need it.
    needed : str
        The library that has the targets: `libmkl_rt.so.3`.
    rpath : str
        Where that lies: `$ORIGIN/../../..`.
    """
    exports = sorted(forwards, key=lambda each: each.name)
    imports = sorted({each.target for each in exports})
    layout = _Layout.plan(exports, imports, _Strings.of([*imports, *(e.name for e in exports), soname, needed, rpath]))
    image = bytearray(layout.end)
    for offset, part in [
        (0, _headers(layout)),
        (layout.symbols, _symbols(layout)),
        (layout.strings, bytes(layout.names.table)),
        (layout.hashes, _hash_table([*imports, *(each.name for each in exports)], exports=len(exports))),
        (layout.relocations, _relocations(layout)),
        *((layout.code[each.name], _code(each, layout)) for each in exports),
        (layout.dynamic, _dynamic(layout, soname=soname, needed=needed, rpath=rpath)),
    ]:
        image[offset : offset + len(part)] = part
    return bytes(image)


def sysv_hash(name: str) -> int:
    """Return the hash by which a dynamic loader finds a name (System V ABI, 5.3).

    Examples
    --------
    >>> hex(sysv_hash("printf"))
    '0x77905a6'
    """
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ high >> 24) & ~high & 0xFFFFFFFF
    return value


def code(each: Forward, *, slot: int, at: int) -> bytes:
    """Return the machine code of one exported name.

    Parameters
    ----------
    each : Forward
        The name and how its call is answered.
    slot, at : int
        The addresses of its target's entry in the GOT, and of the code itself.
    """
    if each.how == "jump":
        return b"\xff\x25" + _relative(slot, at + 6)  # jmp *slot(%rip)
    arguments = _divide_arguments(double=each.double) if each.how == "ladiv" else _dot_arguments(wide=each.wide)
    start = _RESERVE + arguments
    call = b"\xff\x15" + _relative(slot, at + len(start) + 6)  # call *slot(%rip)
    return start + call + _RETURN


_RESERVE = bytes.fromhex(
    "4883ec18"  # sub $24, %rsp: room for the result, and the stack aligned to 16
    "48c7042400000000"  # movq $0, (%rsp)
    "48c744240800000000"  # movq $0, 8(%rsp)
)
_RETURN = bytes.fromhex(
    "f20f100424"  # movsd (%rsp), %xmm0
    "f20f104c2408"  # movsd 8(%rsp), %xmm1: the second double; of no account for two floats, which share xmm0
    "4883c418"  # add $24, %rsp
    "c3"  # ret
)


def _dot_arguments(*, wide: bool) -> bytes:
    """Turn Fortran's `dotc(&n, x, &incx, y, &incy)` into `cblas_dotc_sub(n, x, incx, y, incy, &result)`."""
    values = "488b3f488b124d8b00" if wide else "8b3f8b12458b00"  # mov (%rdi),%rdi (%rdx),%rdx (%r8),%r8
    return bytes.fromhex(values + "4989e1")  # mov %rsp, %r9


def _divide_arguments(*, double: bool) -> bytes:
    """Turn `zladiv(&x, &y)` into `dladiv(&x.re, &x.im, &y.re, &y.im, &result.re, &result.im)`."""
    part = "08" if double else "04"
    return bytes.fromhex(
        "4889f2"  # mov %rsi, %rdx
        f"488d4e{part}"  # lea part(%rsi), %rcx
        f"488d77{part}"  # lea part(%rdi), %rsi
        "4989e0"  # mov %rsp, %r8
        f"4c8d4c24{part}"  # lea part(%rsp), %r9
    )


def _relative(to: int, after: int) -> bytes:
    return struct.pack("<i", to - after)


@dataclass(frozen=True, slots=True)
class _Strings:
    """A string table and where each string begins in it."""

    table: bytearray = field(default_factory=lambda: bytearray(b"\0"))
    offsets: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, strings: Iterable[str]) -> _Strings:
        made = cls()
        for string in strings:
            if string not in made.offsets:
                made.offsets[string] = len(made.table)
                made.table.extend(string.encode() + b"\0")
        return made


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where each part of the file begins; addresses equal offsets."""

    exports: Sequence[Forward]
    imports: Sequence[str]
    names: _Strings
    symbols: int
    strings: int
    hashes: int
    relocations: int
    code: dict[str, int]
    code_end: int
    dynamic: int
    slots: dict[str, int]
    end: int

    @classmethod
    def plan(cls, exports: Sequence[Forward], imports: Sequence[str], names: _Strings) -> _Layout:
        count = 1 + len(imports) + len(exports)
        symbols = _HEADER.size + _SEGMENTS * _SEGMENT.size
        strings = symbols + count * _SYMBOL.size
        hashes = _aligned(strings + len(names.table), 16)
        relocations = _aligned(hashes + 4 * (2 + len(exports) + count), 16)
        position = _aligned(relocations + len(imports) * _RELOCATION.size, 16)
        code = {}
        for each in exports:
            code[each.name] = position
            position += _room(each)
        dynamic = _aligned(position, _PAGE)
        got = dynamic + _DYNAMIC_ENTRIES * _DYNAMIC.size
        slots = {name: got + 8 * index for index, name in enumerate(imports)}
        return cls(
            exports=exports,
            imports=imports,
            names=names,
            symbols=symbols,
            strings=strings,
            hashes=hashes,
            relocations=relocations,
            code=code,
            code_end=position,
            dynamic=dynamic,
            slots=slots,
            end=got + 8 * len(imports),
        )


_DYNAMIC_ENTRIES = 12


def _aligned(position: int, to: int) -> int:
    return -(-position // to) * to


def _room(each: Forward) -> int:
    return _JUMP_BYTES if each.how == "jump" else _STUB_BYTES


def _headers(layout: _Layout) -> bytes:
    writable = layout.end - layout.dynamic
    table = _DYNAMIC_ENTRIES * _DYNAMIC.size
    return b"".join(
        [
            _HEADER.pack(
                _IDENTITY.ljust(16, b"\0"),
                *(_ET_DYN, _EM_X86_64, 1, 0),
                *(_HEADER.size, 0, 0),  # program headers follow; there are no section headers
                *(_HEADER.size, _SEGMENT.size, _SEGMENTS, 64, 0, 0),
            ),
            _segment(_PT_LOAD, _R | _X, 0, layout.code_end, _PAGE),
            _segment(_PT_LOAD, _R | _W, layout.dynamic, writable, _PAGE),
            _segment(_PT_DYNAMIC, _R | _W, layout.dynamic, table, 8),
            _segment(_PT_GNU_STACK, _R | _W, 0, 0, 16),
        ]
    )


def _segment(kind: int, flags: int, offset: int, size: int, alignment: int) -> bytes:
    return _SEGMENT.pack(kind, flags, offset, offset, offset, size, size, alignment)


def _symbols(layout: _Layout) -> bytes:
    offsets = layout.names.offsets
    undefined = [_SYMBOL.pack(offsets[name], _GLOBAL_FUNCTION, 0, 0, 0, 0) for name in layout.imports]
    defined = [
        _SYMBOL.pack(offsets[each.name], _GLOBAL_FUNCTION, 0, 1, layout.code[each.name], _room(each))
        for each in layout.exports
    ]
    return b"".join([bytes(_SYMBOL.size), *undefined, *defined])


def _hash_table(names: Sequence[str], *, exports: int) -> bytes:
    """Return the buckets and chains of the exported names; imported ones are in no chain."""
    buckets, chains = [0] * exports, [0] * (1 + len(names))
    for number, name in list(enumerate(names, 1))[len(names) - exports :]:
        bucket = sysv_hash(name) % exports
        chains[number], buckets[bucket] = buckets[bucket], number
    return struct.pack(f"<{2 + len(buckets) + len(chains)}I", len(buckets), len(chains), *buckets, *chains)


def _relocations(layout: _Layout) -> bytes:
    return b"".join(
        _RELOCATION.pack(layout.slots[name], number << 32 | _R_X86_64_GLOB_DAT, 0)
        for number, name in enumerate(layout.imports, 1)
    )


def _code(each: Forward, layout: _Layout) -> bytes:
    at = layout.code[each.name]
    return code(each, slot=layout.slots[each.target], at=at).ljust(_room(each), b"\xcc")


def _dynamic(layout: _Layout, *, soname: str, needed: str, rpath: str) -> bytes:
    offsets = layout.names.offsets
    entries = [
        (_DT_NEEDED, offsets[needed]),
        (_DT_SONAME, offsets[soname]),
        (_DT_RPATH, offsets[rpath]),
        (_DT_HASH, layout.hashes),
        (_DT_STRTAB, layout.strings),
        (_DT_SYMTAB, layout.symbols),
        (_DT_STRSZ, len(layout.names.table)),
        (_DT_SYMENT, _SYMBOL.size),
        (_DT_RELA, layout.relocations),
        (_DT_RELASZ, len(layout.imports) * _RELOCATION.size),
        (_DT_RELAENT, _RELOCATION.size),
        (_DT_NULL, 0),
    ]
    return b"".join(_DYNAMIC.pack(*entry) for entry in entries)

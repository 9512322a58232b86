"""What a table's columns may hold, as their Arrow types say: images, text, lists of these."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow


def holds_images(kind: pyarrow.DataType) -> bool:
    """Whether a column may hold images: bytes, structs of bytes or a path, or lists of these."""
    from pyarrow import types

    kind = item_of(kind)
    return is_bytes(kind) or (
        types.is_struct(kind)
        and any(
            kind.get_field_index(name) >= 0 and is_kind(kind.field(name).type)
            for name, is_kind in (("bytes", is_bytes), ("path", is_text))
        )
    )


def is_bytes(kind: pyarrow.DataType) -> bool:
    """Whether a column holds bytes, also of one length."""
    from pyarrow import types

    known = (types.is_binary, types.is_large_binary, types.is_binary_view)
    return types.is_fixed_size_binary(kind) or any(is_kind(kind) for is_kind in known)


def is_text(kind: pyarrow.DataType) -> bool:
    """Whether a column holds text."""
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def holds_text(kind: pyarrow.DataType) -> bool:
    """Whether a column holds text, lists of text, or nothing."""
    from pyarrow import types

    item = item_of(kind)
    return is_text(item) or types.is_null(item)


def holds_classes(kind: pyarrow.DataType) -> bool:
    """Whether a column may hold classes: numbers, text, true and false, or nothing."""
    from pyarrow import types

    known = (types.is_integer, types.is_boolean, types.is_floating, types.is_null, is_text)
    return any(is_kind(values_of(kind)) for is_kind in known)


def is_list(kind: pyarrow.DataType) -> bool:
    """Whether a column holds lists, of any length."""
    from pyarrow import types

    known = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    views = (types.is_list_view, types.is_large_list_view)
    return any(is_kind(kind) for is_kind in (*known, *views))


def item_of(kind: pyarrow.DataType) -> pyarrow.DataType:
    """Return the type of one image of a column, also where lists or dictionaries hold them."""
    kind = values_of(kind)
    return values_of(kind.value_type) if is_list(kind) else kind


def values_of(kind: pyarrow.DataType) -> pyarrow.DataType:
    """Return the type of a column's values, also where a dictionary holds them."""
    from pyarrow import types

    return kind.value_type if types.is_dictionary(kind) else kind

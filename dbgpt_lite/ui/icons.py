"""Line icons, 24 x 24, drawn in the text's colour."""

from markupsafe import Markup

# One line a drawing, whatever its length.
# ruff: noqa: E501
_PATHS: dict[str, str] = {
    "plus": "M12 5v14M5 12h14",
    "search": "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14ZM20 20l-4-4",
    "pencil": "M4 20h4L19 9l-4-4L4 16v4ZM13.5 6.5l4 4",
    "trash": "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
    "copy": "M9 9h11v11H9zM5 15H4V4h11v1",
    "check": "M5 12.5l4.5 4.5L19 7.5",
    "again": "M20 11a8 8 0 1 0-2.3 6M20 5v6h-6",
    "book": "M5 4h11a3 3 0 0 1 3 3v13H8a3 3 0 0 1-3-3V4ZM5 17a3 3 0 0 1 3-3h11",
    "database": "M12 9c4 0 7-1.3 7-3s-3-3-7-3-7 1.3-7 3 3 3 7 3ZM5 6v12c0 1.7 3 3 7 3s7-1.3 7-3V6M5 12c0 1.7 3 3 7 3s7-1.3 7-3",
    "chip": "M7 7h10v10H7zM10 3v4M14 3v4M10 17v4M14 17v4M3 10h4M3 14h4M17 10h4M17 14h4",
    "gear": "M4 8h9M17 8h3M4 16h3M11 16h9M15 10.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5ZM9 18.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5Z",
    "moon": "M20 14.5A8 8 0 1 1 9.5 4a6.5 6.5 0 0 0 10.5 10.5Z",
    "menu": "M4 7h16M4 12h16M4 17h16",
    "file": "M6 3h8l4 4v14H6zM14 3v4h4",
    "download": "M12 4v11M7 11l5 5 5-5M5 20h14",
    "chat": "M4 5h16v11H10l-5 4v-4H4z",
    "close": "M6 6l12 12M18 6L6 18",
    "down": "M6 9l6 6 6-6",
    "info": "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18ZM12 11v5M12 8v.01",
    "alert": "M12 4l9 16H3zM12 10v4M12 17v.01",
    "play": "M8 5l11 7-11 7z",
    "table": "M4 5h16v14H4zM4 10h16M10 10v9",
    "spark": "M12 4l1.8 5.2L19 11l-5.2 1.8L12 18l-1.8-5.2L5 11l5.2-1.8z",
    "upload": "M12 16V5M7 9l5-5 5 5M5 20h14",
    "back": "M15 6l-6 6 6 6",
    "next": "M9 6l6 6-6 6",
    "eraser": "M4 15l9-9a2 2 0 0 1 3 0l3 3a2 2 0 0 1 0 3l-8 8H8zM9 10l6 6M8 20h12",
    "folder": "M3 6h6l2 3h10v10H3z",
    "text": "M5 6h14M5 11h14M5 16h9",
    "bulb": "M9 18h6M10 21h4M8.5 15a6 6 0 1 1 7 0c-.6.5-1 1.2-1 2h-5c0-.8-.4-1.5-1-2Z",
    "thumb_up": "M7 20V10l4-7a2 2 0 0 1 2 2v4h5a2 2 0 0 1 2 2.3l-1.2 7A2 2 0 0 1 16.8 20H7ZM7 10H4v10h3",
    "thumb_down": "M7 4v10l4 7a2 2 0 0 0 2-2v-4h5a2 2 0 0 0 2-2.3l-1.2-7A2 2 0 0 0 16.8 4H7ZM7 14H4V4h3",
    "save": "M5 4h11l3 3v13H5zM8 4v5h7V4M8 20v-6h8v6",
    "clock": "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18ZM12 7v5l3 2",
    "globe": "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18ZM3 12h18M12 3c3 3 3 15 0 18M12 3c-3 3-3 15 0 18",
}
MODE_ICONS = {"auto": "spark", "chat": "chat", "documents": "book", "database": "database"}


def icon(name: str) -> Markup:
    """An icon for beside a word; screen readers skip it."""
    return Markup('<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d="{}"/></svg>').format(_PATHS[name])

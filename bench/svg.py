"""The few shapes of SVG that the plots need. Coordinates in pixels, y downward."""
from xml.sax.saxutils import escape

FONT = "font-family='sans-serif' font-size='{size}'"


class Drawing:
    def __init__(self, width, height):
        self.width, self.height = width, height
        self._parts = []

    def rect(self, x, y, width, height, fill, title=None):
        inner = f"<title>{escape(title)}</title>" if title else ""
        self._parts.append(f"<rect x='{x:.1f}' y='{y:.1f}' width='{max(0, width):.1f}' height='{height:.1f}' fill='{fill}'>{inner}</rect>")

    def line(self, x1, y1, x2, y2, color="#888", width=1):
        self._parts.append(f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{color}' stroke-width='{width}'/>")

    def path(self, points, color, width=1.2):
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f"<polyline points='{text}' fill='none' stroke='{color}' stroke-width='{width}'/>")

    def text(self, x, y, text, size=11, anchor="start", color="#222", bold=False):
        weight = " font-weight='bold'" if bold else ""
        self._parts.append(f"<text x='{x:.1f}' y='{y:.1f}' {FONT.format(size=size)} text-anchor='{anchor}' fill='{color}'{weight}>"
                           f"{escape(text)}</text>")

    def write(self, path):
        with open(path, "w") as file:
            file.write(f"<svg xmlns='http://www.w3.org/2000/svg' width='{self.width}' height='{self.height}' "
                       f"viewBox='0 0 {self.width} {self.height}'>\n<rect width='100%' height='100%' fill='#fff'/>\n" +
                       "\n".join(self._parts) + "\n</svg>\n")

"""Calm terminal output for the demo: numbered acts, a block that is redrawn while something goes on, aligned tables. On anything that
is no terminal, plain lines that never move."""
import os
import shutil
import sys
import time

BARS = " ▏▎▍▌▋▊▉█"


class Screen:
    def __init__(self, out=sys.stdout):
        self.out = out
        self.live = out.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.color = self.live and "NO_COLOR" not in os.environ
        self.unicode = (out.encoding or "").lower().replace("-", "") == "utf8"
        self.begin = time.monotonic()
        self._block = 0  # lines of the block that may be redrawn
        self._printed = 0.0  # when a block was last printed on something that is no terminal
        self._act = 0

    # ---- words

    def _style(self, code, text):
        return f"\033[{code}m{text}\033[0m" if self.color else text

    def bold(self, text):
        return self._style("1", text)

    def dim(self, text):
        return self._style("2", text)

    def good(self, text):
        return self._style("32", text)

    def warm(self, text):
        return self._style("33", text)

    def bad(self, text):
        return self._style("1;31", text)

    # ---- lines

    def line(self, text=""):
        self.settle()
        print(text, file=self.out, flush=True)

    def act(self, title):
        """The next act of the story."""
        self._act += 1
        elapsed = time.monotonic() - self.begin
        self.line()
        self.line(f"{self.bold(f'{self._act}. {title}')}  {self.dim(f'{elapsed:.0f} s')}")

    def say(self, text):
        self.line(f"   {text}")

    def table(self, rows, indent=3):
        """Rows of cells; columns are aligned, numbers (cells that begin with a blank) to the right."""
        widths = [max(len(row[i].strip()) for row in rows) for i in range(len(rows[0]))]
        for row in rows:
            cells = [cell.strip().rjust(width) if cell.startswith(" ") else cell.ljust(width)
                     for cell, width in zip(row, widths)]
            self.line(" " * indent + "  ".join(cells).rstrip())

    # ---- a block that changes

    def block(self, lines, every_s=3.0):
        """Shows lines in the place of the block before. Elsewhere than on a terminal: one of them every few seconds."""
        if not self.live:
            if time.monotonic() - self._printed >= every_s:
                self._printed = time.monotonic()
                for line in lines:
                    print(line, file=self.out)
                self.out.flush()
            return
        width = shutil.get_terminal_size().columns
        if self._block:
            self.out.write(f"\033[{self._block}F\033[J")
        for line in lines:
            self.out.write(clip(line, width - 1) + "\n")
        self.out.flush()
        self._block = len(lines)

    def settle(self):
        """The block stays as it is; what comes next goes below."""
        self._block = 0
        self._printed = 0.0

    def bar(self, share, width=24, hot=0.8):
        """A share of 0 to 1 (more is full) as a bar."""
        filled = min(max(share, 0), 1) * width
        if self.unicode:
            whole = int(filled)
            text = "█" * whole + (BARS[int((filled - whole) * 8)] if whole < width else "")
            text = text.strip().ljust(width, "·")
        else:
            text = ("#" * round(filled)).ljust(width, ".")
        return self.bad(text) if share > hot else self.warm(text) if share > hot * 0.75 else self.good(text)


def clip(line, width):
    """Cuts a line that may hold colours to a width."""
    out, seen, i = [], 0, 0
    while i < len(line):
        if line[i] == "\033":
            end = line.index("m", i) + 1
            out.append(line[i:end])
            i = end
            continue
        if seen < width:
            out.append(line[i])
            seen += 1
        i += 1
    return "".join(out)

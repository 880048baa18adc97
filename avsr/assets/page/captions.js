// Final events as files: plain text, and subtitles as SubRip (SRT).

const LINE_CHARACTERS = 42; // as in the subtitles that avsr transcribe writes
const CUE_LINES = 2;
const MIN_CUE_S = 0.8; // a shorter cue cannot be read
const LEAST_S = 0.001; // players skip a cue that ends when it starts

/** The words of final events as text, a line for each event. */
export function toText(finals) {
  return finals.map(({ words }) => `${textOf(words)}\n`).join("");
}

/** The words of final events as SubRip. start: the time, in seconds on the clock of the words, that becomes 0. */
export function toSrt(finals, start) {
  const cues = finals.flatMap(({ words }) => cuesOf(words));
  return cues
    .map((cue, i) => {
      const wanted = Math.max(cue.end, cue.start + MIN_CUE_S);
      const end = Math.max(Math.min(wanted, cues[i + 1]?.start ?? Infinity), cue.start + LEAST_S);
      const times = [cue.start, end].map((seconds) => srtTime(Math.max(0, seconds - start)));
      // Players take a line with an arrow for times, and SubRip has no way to escape it.
      const text = cue.lines.map(textOf).join("\n").replaceAll("-->", "->");
      return `${i + 1}\n${times.join(" --> ")}\n${text}\n`;
    })
    .join("\n");
}

function textOf(words) {
  return words.map(({ word }) => word).join(" ");
}

/** Words as cues of at most two lines: [{start, end, lines}], each line a list of words. */
function cuesOf(words) {
  const lines = [];
  for (const word of words) {
    const line = lines.at(-1);
    if (line && textOf([...line, word]).length <= LINE_CHARACTERS) line.push(word);
    else lines.push([word]);
  }
  const cues = [];
  for (let first = 0; first < lines.length; first += CUE_LINES) {
    const shown = lines.slice(first, first + CUE_LINES);
    cues.push({ start: shown[0][0].start, end: shown.at(-1).at(-1).end, lines: shown });
  }
  return cues;
}

/** Seconds as HH:MM:SS,mmm. */
function srtTime(seconds) {
  const ms = Math.round(1000 * seconds);
  const parts = [ms / 3600000, (ms / 60000) % 60, (ms / 1000) % 60].map((part) => String(Math.floor(part)).padStart(2, "0"));
  return `${parts.join(":")},${String(ms % 1000).padStart(3, "0")}`;
}

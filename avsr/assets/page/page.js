// The page of avsr serve: camera and microphone to the server, words back. The messages are described in docs/serve.md.

import { toSrt, toText } from "./captions.js";

const PROTOCOL = 1;
const INT16_SOUND = 1;
const JPEG_PICTURE = 3;
const PICTURE_PX = 640; // longer side
const PICTURES_PER_S = 25;
const JPEG_QUALITY = 0.82;
const FULL_BYTES = 128 * 1024; // if more waits to be sent, pictures are left out
const STUCK_BYTES = 2 * 1024 * 1024; // if more waits to be sent, the connection is given up
const CLOCK_WINDOW_S = 10;
const TRACE_S = 12;
const MAX_LINES = 200; // shown; saved captions hold all

const MODES = {
  av: "Sound + lips",
  a: "Sound alone",
  v: "Lips alone",
  none: "Waiting",
};
const REASONS = {
  ok: "",
  late: "pictures come too late",
  lost: "no pictures come",
  no_face: "no face in the picture",
  pose: "the face is turned away",
  low_quality: "the face is too small or blurred",
  occluded: "the lips are covered",
  silent: "it is quiet",
  sound_lost: "no sound comes",
};
const CLOSED = {
  4400: "The server did not understand",
  4401: "The token is missing or wrong",
  4408: "The server waited in vain",
  4409: "Nothing was sent for a while",
  4410: "The session has reached its end",
  4411: "This browser is too slow",
  4413: "A message was too large",
  4429: "Too much was sent at once",
  4500: "The recogniser failed",
  4503: "The server is busy",
};
const GONE = ["No connection to the server", "It may have been stopped. Start avsr serve again, then press Start."];

const root = document.documentElement;
const byId = (id) => document.getElementById(id);
const camera = byId("camera");
const token = new URLSearchParams(location.search).get("token") ?? "";
const now = () => performance.now() / 1000; // the clock of all times that are sent

/** A problem to show: a title, and what to do about it. */
class Problem extends Error {
  constructor(title, remedy) {
    super(title);
    this.remedy = remedy;
  }
}

// ---------------------------------------------------------------------------------------------------------------- media

function checkBrowser() {
  if (!window.isSecureContext || !navigator.mediaDevices) {
    throw new Problem(
      "The browser gives no camera and microphone to this address",
      "They are for localhost and https only. From another machine: ssh -L 8765:localhost:8765 MACHINE, then open http://localhost:8765 here.",
    );
  }
  if (!window.AudioWorkletNode || !window.WebSocket || !navigator.mediaDevices.getUserMedia) {
    throw new Problem("This browser is too old", "Use a current Chrome, Edge, Firefox or Safari.");
  }
}

/** The problem behind an error of getUserMedia. */
function mediaProblem(error, what) {
  switch (error.name) {
    case "NotAllowedError":
    case "SecurityError":
      return new Problem(`The ${what} is not allowed`, "Allow it for this page, by the symbol beside the address, then press Start again.");
    case "NotFoundError":
    case "OverconstrainedError":
      return new Problem(`No ${what} was found`, "Connect one, or choose another in the list.");
    case "NotReadableError":
    case "AbortError":
      return new Problem(`The ${what} cannot be used`, "Another program may be using it: close that, or choose another device.");
    default:
      return new Problem(`The ${what} does not start`, `${error.name}: ${error.message}`);
  }
}

function soundWanted(id) {
  // Without the browser's filters: they are made for listeners and remove sound that recognition needs.
  const sound = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: true };
  return id ? { ...sound, deviceId: { exact: id } } : sound;
}

function pictureWanted(id) {
  const picture = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
  return id ? { ...picture, deviceId: { exact: id } } : picture;
}

/** Open both with one question to the user. If that fails, open each alone, to find out which one fails. */
async function openMedia(microphone, cameraId) {
  const audio = microphone === "none" ? false : soundWanted(microphone);
  const video = cameraId === "none" ? false : pictureWanted(cameraId);
  if (!audio && !video) throw new Problem("Neither camera nor microphone is chosen", "Choose at least one of them.");
  const open = (constraints) => navigator.mediaDevices.getUserMedia(constraints);
  if (audio && video) {
    try {
      return { stream: await open({ audio, video }), problems: [] };
    } catch (failure) {
      const problems = [];
      const tracks = [];
      const isRefused = failure.name === "NotAllowedError";
      const refused = await Promise.all(["microphone", "camera"].map((what) => isRefused && isForbidden(what)));
      // A user who refused both is not asked again for each.
      if (isRefused && refused[0] === refused[1]) throw bothFailed([mediaProblem(failure, "microphone"), mediaProblem(failure, "camera")]);
      for (const [what, constraints] of [["microphone", { audio }], ["camera", { video }]]) {
        try {
          tracks.push(...(await open(constraints)).getTracks());
        } catch (error) {
          problems.push(mediaProblem(error, what));
        }
      }
      if (tracks.length === 0) throw bothFailed(problems);
      return { stream: new MediaStream(tracks), problems };
    }
  }
  try {
    return { stream: await open({ audio, video }), problems: [] };
  } catch (error) {
    throw mediaProblem(error, audio ? "microphone" : "camera");
  }
}

/** Whether the user has forbidden it for this page. */
async function isForbidden(name) {
  try {
    return (await navigator.permissions.query({ name })).state === "denied";
  } catch {
    return false; // this browser cannot be asked
  }
}

function bothFailed([first, second]) {
  if (first.remedy !== second.remedy) return first;
  const title = first.message.startsWith("No ") ? "Neither a microphone nor a camera was found" : first.message.replace("The microphone is", "Camera and microphone are").replace("The microphone", "Neither camera nor microphone").replace("does not start", "starts").replace("cannot be used", "can be used");
  return new Problem(title, first.remedy.replace("Allow it", "Allow them").replace("Connect one", "Connect a microphone, better with a camera"));
}

async function listDevices() {
  if (!navigator.mediaDevices?.enumerateDevices) return;
  const devices = await navigator.mediaDevices.enumerateDevices().catch(() => []);
  for (const [list, kind] of [[byId("cameras"), "videoinput"], [byId("microphones"), "audioinput"]]) {
    const chosen = list.value;
    const options = devices
      .filter((device) => device.kind === kind && device.label && !["", "default", "communications"].includes(device.deviceId))
      .map((device) => new Option(device.label, device.deviceId));
    list.replaceChildren(list.options[0], ...options, list.options[list.options.length - 1]);
    list.value = [...list.options].some((option) => option.value === chosen) ? chosen : "";
  }
}

/** Sound of a stream in blocks: give(samples: Int16Array at 16 kHz, time of the first sample). */
class Microphone {
  constructor(give) {
    this.give = give;
    this.delays = []; // [when, performance clock - audio clock], smallest of the last seconds first
  }

  async start(stream) {
    try {
      await this.build(stream, new AudioContext({ sampleRate: 16000, latencyHint: "interactive" }));
    } catch (error) {
      if (error.name !== "NotSupportedError") throw error;
      await this.build(stream, new AudioContext({ latencyHint: "interactive" })); // Firefox; the worklet resamples
    }
  }

  async build(stream, context) {
    this.context = context;
    try {
      await context.audioWorklet.addModule("microphone.js");
      this.node = new AudioWorkletNode(context, "microphone", { numberOfOutputs: 1, outputChannelCount: [1] });
      this.node.port.onmessage = ({ data }) => this.take(data);
      this.node.connect(context.destination); // silent, but without it some browsers do not run the node
      context.onstatechange = () => (this.delays = []); // the offset between the clocks has changed
      this.use(stream);
      await context.resume();
    } catch (error) {
      await context.close();
      throw error;
    }
  }

  use(stream) {
    this.source?.disconnect();
    this.source = stream ? this.context.createMediaStreamSource(stream) : null;
    this.source?.connect(this.node);
    // Time from the air to the audio clock, if the device reports it.
    const latency = stream?.getAudioTracks()[0]?.getSettings().latency ?? 0;
    this.latency = latency > 0 && latency < 0.5 ? latency : 0;
  }

  take({ time, samples }) {
    const seconds = now();
    const delay = seconds - (time + samples.length / 16000);
    while (this.delays.length && this.delays.at(-1)[1] >= delay) this.delays.pop();
    this.delays.push([seconds, delay]);
    while (this.delays[0][0] < seconds - CLOCK_WINDOW_S) this.delays.shift();
    this.give(samples, time + this.delays[0][1] - this.latency);
  }

  async stop() {
    this.source?.disconnect();
    this.node.port.onmessage = null;
    if (this.context.state !== "closed") await this.context.close();
  }
}

/** Pictures of the video element as JPEG: give(bytes, time of the picture). wants(): whether to take one now. */
class Camera {
  constructor(give, wants) {
    this.give = give;
    this.wants = wants;
    this.canvas = document.createElement("canvas");
    this.drawing = this.canvas.getContext("2d", { alpha: false });
    this.due = 0;
    this.isBusy = false;
    this.isOn = true;
    this.next();
  }

  next() {
    if (!this.isOn) return;
    if (camera.requestVideoFrameCallback) {
      camera.requestVideoFrameCallback((when, { captureTime }) => this.look(when, captureTime));
    } else {
      this.timer = setTimeout(() => this.look(performance.now()), 1000 / PICTURES_PER_S);
    }
  }

  look(when, captured) {
    const isTimed = captured !== undefined && Math.abs(captured - when) < 2000;
    const time = (isTimed ? captured : when) / 1000;
    const isDue = time >= this.due - 0.004;
    if (isDue && !this.isBusy && camera.videoWidth > 0 && this.wants()) {
      this.due = Math.max(this.due + 1 / PICTURES_PER_S, time);
      this.take(time);
    }
    this.next();
  }

  take(time) {
    const scale = Math.min(1, PICTURE_PX / Math.max(camera.videoWidth, camera.videoHeight));
    const [width, height] = [camera.videoWidth, camera.videoHeight].map((side) => Math.max(32, Math.round(side * scale)));
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.drawing.drawImage(camera, 0, 0, width, height);
    this.isBusy = true;
    this.canvas.toBlob(
      async (blob) => {
        try {
          if (blob && this.isOn) this.give(await blob.arrayBuffer(), time);
        } finally {
          this.isBusy = false;
        }
      },
      "image/jpeg",
      JPEG_QUALITY,
    );
  }

  stop() {
    this.isOn = false;
    clearTimeout(this.timer);
  }
}

// -------------------------------------------------------------------------------------------------------------- session

/** The connection to the server. on(event) is called with each event, closed(problem) at the end; null: no problem. */
class Connection {
  constructor(on, closed) {
    this.on = on;
    this.closed = closed;
    this.error = null;
    this.isReady = false;
  }

  open(video) {
    return new Promise((resolve, reject) => {
      this.socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/stream`);
      this.socket.binaryType = "arraybuffer";
      this.socket.onopen = () => this.socket.send(JSON.stringify({ type: "hello", protocol: PROTOCOL, token, video }));
      this.socket.onmessage = ({ data }) => {
        const event = JSON.parse(data);
        if (event.event === "error") this.error = event;
        if (event.event === "hello") {
          this.isReady = true;
          resolve(event);
        }
        this.on(event);
      };
      this.socket.onclose = ({ code, reason }) => {
        this.isReady = false;
        if (code === 1000) return this.closed(null);
        const isKnown = code in CLOSED;
        const problem = isKnown ? new Problem(CLOSED[code], sentence(this.error?.message || reason)) : new Problem(...GONE);
        reject(problem);
        this.closed(problem);
      };
    });
  }

  get waiting() {
    return this.socket.bufferedAmount;
  }

  send(kind, time, payload) {
    if (!this.isReady || this.socket.readyState !== WebSocket.OPEN) return;
    const message = new Uint8Array(9 + payload.byteLength);
    const header = new DataView(message.buffer);
    header.setUint8(0, kind);
    header.setFloat64(1, time, true);
    message.set(new Uint8Array(payload.buffer ?? payload), 9);
    this.socket.send(message);
  }

  stop() {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type: "stop" }));
  }

  drop() {
    this.isReady = false;
    this.socket.close();
  }
}

function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".") : "";
}

const live = { connection: null, microphone: null, camera: null, stream: null, started: 0, held: 0, lost: null };

async function start() {
  setState("starting");
  hideNotice();
  try {
    checkBrowser();
    const { stream, problems } = await openMedia(byId("microphones").value, byId("cameras").value);
    live.stream = stream;
    const hasCamera = stream.getVideoTracks().length > 0;
    const hasMicrophone = stream.getAudioTracks().length > 0;
    listDevices();
    if (problems.length) showGoingOn(problems[0], hasMicrophone);
    resetFigures();
    const connection = new Connection(onEvent, onClosed);
    live.connection = connection;
    live.held = 0;
    live.lost = null;
    await connection.open(hasCamera || byId("cameras").value !== "none");
    live.started = now();
    captions.start ??= live.started;
    if (hasMicrophone) await startMicrophone();
    if (hasCamera) await startCamera();
    for (const track of stream.getTracks()) watch(track);
    if (live.lost) throw live.lost;
    setState("running");
    if (!root.dataset.mode) showMode("", hasMicrophone ? "listening" : "looking");
    trace.run();
  } catch (error) {
    await stopMedia();
    live.connection?.socket && live.connection.drop();
    fail(error);
  }
}

async function startMicrophone() {
  live.microphone = new Microphone((samples, time) => {
    const { connection } = live;
    if (!connection?.isReady) return;
    if (connection.waiting > STUCK_BYTES) return lose(new Problem("The server takes nothing any more", "Press Start to try again."));
    connection.send(INT16_SOUND, time, samples);
    trace.hear(samples, time);
  });
  await live.microphone.start(live.stream);
}

async function startCamera() {
  camera.srcObject = new MediaStream(live.stream.getVideoTracks());
  await camera.play();
  root.dataset.camera = "on";
  live.camera = new Camera(
    (bytes, time) => live.connection?.send(JPEG_PICTURE, time, bytes),
    () => {
      if (!live.connection?.isReady) return false;
      const isFree = live.connection.waiting < FULL_BYTES;
      if (!isFree) live.held += 1;
      return isFree;
    },
  );
}

function watch(track) {
  track.addEventListener("ended", () => {
    if (root.dataset.state !== "running" || !live.stream?.getTracks().includes(track)) return;
    live.stream.removeTrack(track);
    const what = track.kind === "video" ? "camera" : "microphone";
    if (what === "camera") stopCamera();
    if (live.stream.getTracks().length === 0) return lose(new Problem(`The ${what} has gone`, "Connect it again, then press Start."));
    showNotice(new Problem(`The ${what} has gone`, what === "camera" ? "Going on with the sound alone." : "Going on with the lips alone."), "note");
  });
}

function stopCamera() {
  live.camera?.stop();
  live.camera = null;
  camera.srcObject = null;
  delete root.dataset.camera;
}

async function stopMedia() {
  stopCamera();
  const { microphone, stream } = live;
  live.microphone = live.stream = null;
  for (const track of stream?.getTracks() ?? []) track.stop();
  await microphone?.stop().catch(() => {});
}

/** Switch to another camera or microphone while the session goes on. */
async function change(kind) {
  if (root.dataset.state !== "running") return;
  const isCamera = kind === "video";
  const id = byId(isCamera ? "cameras" : "microphones").value;
  try {
    let tracks = [];
    if (id !== "none") {
      const wanted = isCamera ? { video: pictureWanted(id) } : { audio: soundWanted(id) };
      tracks = (await navigator.mediaDevices.getUserMedia(wanted)).getTracks();
    }
    if (root.dataset.state !== "running") return tracks.forEach((track) => track.stop());
    for (const track of isCamera ? live.stream.getVideoTracks() : live.stream.getAudioTracks()) {
      live.stream.removeTrack(track);
      track.stop();
    }
    for (const track of tracks) {
      live.stream.addTrack(track);
      watch(track);
    }
    if (isCamera) {
      stopCamera();
      root.dataset.video = tracks.length ? "on" : "off";
      if (tracks.length) await startCamera();
    } else if (live.microphone) {
      live.microphone.use(tracks.length ? new MediaStream(tracks) : null);
    } else if (tracks.length) {
      await startMicrophone();
    }
    if (live.stream.getTracks().length === 0) await stop();
    hideNotice();
  } catch (error) {
    showNotice(mediaProblem(error, isCamera ? "camera" : "microphone"), "note");
  }
}

let takingLeave = 0;

async function stop() {
  setState("stopping");
  await stopMedia();
  live.connection.stop();
  takingLeave = setTimeout(() => live.connection?.drop(), 8000); // the server may have much sound left to recognise
}

function onClosed(problem) {
  clearTimeout(takingLeave);
  live.connection = null;
  live.lost = problem;
  if (root.dataset.state === "starting") return; // start() shows the problem
  if (problem && root.dataset.state === "running") lose(problem);
  else finish();
}

/** End the running session because of a problem. */
async function lose(problem) {
  live.connection?.drop();
  live.connection = null;
  await stopMedia();
  fail(problem);
}

function fail(error) {
  finish();
  showNotice(error instanceof Problem ? error : new Problem("Something went wrong", `${error.name}: ${error.message}`), "problem");
}

function finish() {
  setState("idle");
  showMode("", "");
  settlePartial();
  lips.clear();
  trace.stop();
}

// -------------------------------------------------------------------------------------------------------------- events

const seen = { words: 0, rated: 0, sure: 0, delays: [], newest: -Infinity };

function onEvent(event) {
  switch (event.event) {
    case "hello":
      showDomain(event.notice); // the server may have been started again with another model
      root.dataset.video = event.video && event.modalities.includes("av") ? "on" : "off";
      break;
    case "partial":
      showPartial(event);
      break;
    case "final":
      showFinal(event);
      break;
    case "mode":
      trace.change(event.text);
      showMode(event.text, reasonOf(event));
      break;
    case "lips":
      lips.add(event);
      trace.see(event.present);
      break;
    case "status":
      showCounters(event.counters, event);
      break;
    case "counters":
      showCounters(event.counters, null);
      break;
  }
}

function reasonOf({ text, reason }) {
  if (text === "a" && root.dataset.video === "off") return "no camera";
  if (text === "a" && !root.dataset.camera) return "no camera";
  return REASONS[reason] ?? reason;
}

function showMode(mode, reason) {
  root.dataset.mode = mode;
  byId("mode").textContent = mode ? MODES[mode] : "Ready";
  byId("reason").textContent = reason;
}

function wordNode(word, isCommitted) {
  const node = document.createElement("span");
  node.className = "word";
  node.textContent = word.word;
  dress(node, word, isCommitted);
  return node;
}

function dress(node, word, isCommitted) {
  const by = { av: "from sound and lips", a: "from the sound", v: "from the lips" }[word.modality];
  node.dataset.by = word.modality;
  const sure = word.confidence ?? 1; // null: the model gives no confidences
  node.style.setProperty("--sure", sure.toFixed(3));
  node.classList.toggle("doubtful", sure < 0.5);
  node.classList.toggle("committed", isCommitted);
  node.title = word.confidence === null ? by : `${Math.round(100 * sure)} % sure, ${by}`;
}

function lineOf(words) {
  const line = document.createElement("span");
  line.className = "line";
  line.append(...words.flatMap((word) => [wordNode(word, true), " "]));
  return line;
}

function timeNode(seconds) {
  const node = document.createElement("time");
  node.textContent = clock(Math.max(0, seconds - live.started));
  return node;
}

function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}

function showPartial(event) {
  const { words, start } = event;
  captions.partial = event;
  const partial = byId("partial");
  byId("empty").hidden = true;
  if (words.length === 0) return partial.replaceChildren();
  let line = partial.querySelector(".line");
  if (!line) {
    line = lineOf([]);
    partial.replaceChildren(timeNode(start), line);
  }
  const nodes = [...line.querySelectorAll(".word")];
  words.forEach((word, i) => {
    const isCommitted = i < event.committed;
    if (nodes[i]?.textContent === word.word) return dress(nodes[i], word, isCommitted);
    if (nodes[i]) nodes[i].replaceWith(wordNode(word, isCommitted));
    else line.append(wordNode(word, isCommitted), " ");
  });
  nodes.slice(words.length).forEach((node) => node.remove());
  timeWords(words);
  scroll();
}

function showFinal(event) {
  const { words, start } = event;
  captions.partial = null;
  byId("partial").replaceChildren();
  byId("empty").hidden = true;
  timeWords(words);
  if (event.reason === "foreign") return showLeftOut(start);
  if (words.length === 0) return;
  seen.newest = -Infinity;
  addLine(start, lineOf(words));
  captions.add(event);
  seen.words += words.length;
  byId("words").textContent = seen.words;
  const known = words.map((word) => word.confidence).filter((confidence) => confidence !== null);
  seen.rated += known.length;
  seen.sure += known.reduce((sum, confidence) => sum + confidence, 0);
  if (seen.rated > 0) byId("confidence").replaceChildren(...figure(Math.round((100 * seen.sure) / seen.rated), "%"));
  scroll();
}

function addLine(start, content) {
  const item = document.createElement("li");
  item.append(timeNode(start), content);
  byId("log").append(item);
  if (byId("log").children.length > MAX_LINES) byId("log").firstElementChild.remove();
}

/** Say that the words of an utterance were taken back. One line stands for several such utterances in a row. */
function showLeftOut(start) {
  if (byId("log").lastElementChild?.querySelector(".left-out")) return;
  const note = document.createElement("span");
  note.className = "left-out";
  note.textContent = "left out: not the speech that the model knows";
  addLine(start, note);
  scroll();
}

/** Measure the delay of a new word. Its end is on the clock of this page, so the delay includes the network. */
function timeWords(words) {
  const last = words.at(-1);
  if (!last || last.end <= seen.newest) return;
  seen.newest = last.end;
  seen.delays.push(1000 * (now() - last.end));
  seen.delays = seen.delays.slice(-15);
  const sorted = [...seen.delays].sort((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)];
  byId("delay").replaceChildren(...figure(Math.max(0, Math.round(median / 10) * 10), "ms"));
}

function figure(value, unit) {
  const small = document.createElement("small");
  small.textContent = ` ${unit}`;
  return [String(value), small];
}

/** Keep the words that were still dim when a session broke off. */
function settlePartial() {
  const line = byId("partial").querySelector(".line");
  if (!line) return;
  const item = document.createElement("li");
  item.append(...byId("partial").childNodes);
  byId("log").append(item);
  captions.add(captions.partial);
}

/** The captions since the last Clear, for the clipboard and for files. All of this stays in the browser. */
const captions = {
  finals: [], // events
  partial: null, // the last partial event, while its words may still change
  start: null, // when the first session began: subtitles count from there, and a pause between two sessions is kept

  add(event) {
    this.finals.push(event);
    this.partial = null;
    this.enable();
  },

  clear() {
    this.finals = [];
    this.start = live.connection ? live.started : null;
    this.enable();
  },

  enable() {
    for (const id of ["copy", "save-text", "save-srt", "clear"]) byId(id).disabled = this.finals.length === 0;
  },
};

/** Hand a file to the browser's downloads. */
function save(content, ending, type) {
  const time = new Date().toLocaleString("sv").replace(" ", "-").replaceAll(":", ""); // Swedish: 2026-01-31 09:30:00
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: `${type};charset=utf-8` }));
  link.download = `captions-${time}.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000); // some browsers read it after the click
}

function scroll() {
  const box = byId("scroll");
  if (box.scrollHeight - box.scrollTop - box.clientHeight < 160) box.scrollTop = box.scrollHeight;
}

const COUNTED = {
  pictures: "Pictures received",
  used: "… used",
  absent: "… without readable lips",
  late: "… too late",
  duplicate: "… of the same moment as another",
  pending: "… not yet decided",
  pictures_dropped: "Pictures that waited too long for the server",
  pictures_broken: "Pictures that could not be decoded",
  held: "Pictures held back by this page",
  samples: "Sound received",
  samples_lost: "Sound that never came",
  samples_late: "Sound that came too late",
  joints: "Times the clock of the sound began again",
  samples_dropped: "Sound that waited too long for the server",
  steps_skipped: "Updates left out by a busy server",
  chunks: "Chunks recognised",
  latency_ms: "Delay by the algorithm",
  backlog_ms: "Sound waiting to be recognised",
};

function showCounters(counters, status) {
  const known = { ...counters, held: live.held };
  if (status) Object.assign(known, { latency_ms: status.latency_ms, backlog_ms: status.backlog_ms });
  const rows = Object.entries(COUNTED).filter(([name]) => name in known);
  byId("counters").replaceChildren(
    ...rows.map(([name, label]) => {
      const row = document.createElement("div");
      const [term, value] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = label;
      if (name.startsWith("samples")) value.textContent = `${(known[name] / 16000).toFixed(1)} s`;
      else value.textContent = name.endsWith("_ms") ? `${Math.round(known[name])} ms` : known[name];
      row.append(term, value);
      return row;
    }),
  );
  const decided = counters.pictures - (counters.pending ?? 0);
  if (root.dataset.video !== "off" && decided > 0) {
    byId("used").replaceChildren(...figure(Math.round((100 * counters.used) / decided), "%"));
    byId("used-more").textContent = `of ${decided} pictures`;
  }
  byId("time").textContent = `in ${clock(now() - live.started)}`;
}

function resetFigures() {
  Object.assign(seen, { words: 0, rated: 0, sure: 0, delays: [], newest: -Infinity });
  for (const id of ["delay", "confidence", "used", "words"]) byId(id).textContent = "–";
  byId("used-more").textContent = "of the pictures";
  byId("time").textContent = "0:00";
}

/** Lip crops come in chunks. They are shown at the pace at which they were taken. */
const lips = {
  queue: [],
  timer: 0,
  add(event) {
    this.queue.push(event);
    if (this.queue.length > 25) this.queue.splice(0, this.queue.length - 12);
    this.timer ||= setInterval(() => this.show(), 40);
  },
  async show() {
    const event = this.queue.shift();
    if (!event) {
      clearInterval(this.timer);
      this.timer = 0;
      return;
    }
    byId("lips").dataset.present = event.present ? "yes" : "no";
    byId("no-lips").textContent = event.present ? "" : REASONS[event.reason] ?? event.reason;
    if (!event.png) return;
    const image = new Image();
    image.src = `data:image/png;base64,${event.png}`;
    await image.decode().catch(() => {});
    byId("crop").getContext("2d").drawImage(image, 0, 0);
  },
  clear() {
    this.queue = [];
    byId("lips").dataset.present = "";
    byId("no-lips").textContent = "";
    byId("crop").getContext("2d").clearRect(0, 0, 96, 96);
  },
};

/** The strip below the camera: the level of the sound, with a line where lips were found, in the colour of the mode. */
const trace = {
  bars: [], // {time, level, mode, lips}
  isRunning: false,
  mode: "",
  lips: false,
  hear(samples, time) {
    let sum = 0;
    for (const sample of samples) sum += (sample / 32768) ** 2;
    const level = Math.min(1, Math.max(0, 1 + (10 * Math.log10(sum / samples.length + 1e-9)) / 55));
    const last = this.bars.at(-1);
    if (last && time - last.time < 0.07) last.level = Math.max(last.level, level);
    else this.bars.push({ time, level, mode: this.mode, lips: this.lips });
    while (this.bars.length && this.bars[0].time < time - TRACE_S - 1) this.bars.shift();
  },
  change(mode) {
    this.mode = mode;
  },
  see(present) {
    this.lips = present;
  },
  run() {
    this.bars = [];
    this.mode = "";
    this.isRunning = true;
    this.draw();
  },
  stop() {
    this.isRunning = false;
    this.lips = false;
    this.paint();
  },
  draw() {
    if (!this.isRunning) return;
    const end = now() - 0.2; // if no sound has come since then, empty bars show that time goes on
    for (let time = this.bars.at(-1)?.time ?? end; time < end; time += 0.08) this.hear([0], time + 0.08);
    this.paint();
    requestAnimationFrame(() => this.draw());
  },
  paint() {
    const canvas = byId("trace");
    const scale = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const style = getComputedStyle(root);
    const colour = (mode) => this.colour(style, mode);
    const step = (width * 0.08) / TRACE_S;
    const middle = (height - 9) / 2;
    pen.lineCap = "round";
    if (!this.bars.length) {
      pen.fillStyle = this.colour(style, "none");
      pen.globalAlpha = 0.35;
      for (let x = step; x < width; x += step) pen.fillRect(x, middle - 1, Math.max(1.5, step * 0.5), 2);
      pen.globalAlpha = 1;
      return;
    }
    const end = this.isRunning ? now() : this.bars.at(-1).time;
    for (const { time, level, mode, lips: present } of this.bars) {
      const x = width - ((end - time) / TRACE_S) * width;
      const tall = Math.max(1.5, level * (middle - 2));
      pen.fillStyle = colour(mode);
      pen.beginPath();
      pen.roundRect(x, middle - tall, Math.max(1.5, step * 0.55), 2 * tall, 2);
      pen.fill();
      if (present) pen.fillRect(x, height - 4, step + 0.5, 3);
    }
  },
  colour(style, mode) {
    const probe = (this.probe ??= document.body.appendChild(Object.assign(document.createElement("i"), { hidden: true })));
    probe.style.color = `var(--${MODES[mode] ? mode : "none"})`;
    return getComputedStyle(probe).color;
  },
};

// ---------------------------------------------------------------------------------------------------------------- page

function setState(state) {
  root.dataset.state = state;
  const button = byId("start");
  button.querySelector("span").textContent = { idle: "Start", starting: "Starting", running: "Stop", stopping: "Stopping" }[state];
  button.disabled = state === "starting" || state === "stopping";
  if (state === "starting") showMode("", "camera and microphone");
}

function showNotice(problem, kind) {
  const notice = byId("notice");
  notice.dataset.kind = kind;
  notice.querySelector("b").textContent = problem.message;
  notice.querySelector("p").textContent = problem.remedy;
  notice.hidden = false;
}

function showGoingOn(problem, hasMicrophone) {
  const rest = hasMicrophone ? "Going on with the sound alone." : "Going on with the lips alone.";
  showNotice(new Problem(problem.message, `${rest} ${problem.remedy}`), "note");
}

function hideNotice() {
  byId("notice").hidden = true;
}

async function copy() {
  try {
    await navigator.clipboard.writeText(toText(captions.finals));
    byId("copy").textContent = "Copied";
  } catch {
    byId("copy").textContent = "Not allowed";
  }
  setTimeout(() => (byId("copy").textContent = "Copy"), 1500);
}

function clear() {
  byId("log").replaceChildren();
  captions.clear();
  byId("empty").hidden = root.dataset.state === "running" && byId("partial").hasChildNodes();
}

function remember(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // storage is switched off, and nothing depends on it
  }
}

function remembered(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

/** The colours follow the system until the user chooses. */
function switchTheme() {
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  remember("theme", root.dataset.theme);
  trace.paint();
}

/** Show the limits of the model's domain, for as long as the page is open: wrong words look as sure as right ones. */
function showDomain(notice) {
  byId("domain").textContent = sentence(notice);
  byId("domain").hidden = !notice;
}

async function showInfo() {
  try {
    const answer = await fetch("info", { headers: { authorization: `Bearer ${token}` } });
    if (!answer.ok) throw new Problem(CLOSED[4401], "Open the page by the address that avsr serve printed.");
    const info = await answer.json();
    byId("model").textContent = `${info.model} · ${info.chunk_ms} ms steps`;
    byId("model").title = `avsr ${info.version}; at most ${info.max_sessions} sessions at a time`;
    byId("model").hidden = false;
    showDomain(info.notice);
    if (info.model.startsWith("grid-")) {
      byId("hint").querySelector("strong").nextSibling.textContent =
        " Say a sentence of the GRID corpus, such as “bin blue at f two now” or “set green by q nine please”.";
    }
    if (!info.modalities.includes("av")) byId("cameras").value = "none";
  } catch (error) {
    showNotice(error instanceof Problem ? error : new Problem(...GONE), "problem");
  }
}

function begin() {
  const theme = remembered("theme");
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;
  const isHere = /^(localhost|127\.[0-9.]+|\[::1\])$/.test(location.hostname);
  byId("place").querySelector("span").textContent = isHere ? "stays on this machine" : `sent to ${location.hostname} only`;
  byId("start").addEventListener("click", () => (root.dataset.state === "running" ? stop() : start()));
  byId("cameras").addEventListener("change", () => change("video"));
  byId("microphones").addEventListener("change", () => change("audio"));
  byId("notice").querySelector("button").addEventListener("click", hideNotice);
  byId("copy").addEventListener("click", copy);
  byId("save-text").addEventListener("click", () => save(toText(captions.finals), "txt", "text/plain"));
  byId("save-srt").addEventListener("click", () => save(toSrt(captions.finals, captions.start), "srt", "application/x-subrip"));
  byId("clear").addEventListener("click", clear);
  byId("theme").addEventListener("click", switchTheme);
  navigator.mediaDevices?.addEventListener?.("devicechange", listDevices);
  addEventListener("resize", () => trace.paint());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => trace.paint());
  addEventListener("pagehide", () => live.connection?.drop());
  showMode("", "");
  trace.paint();
  listDevices();
  showInfo();
  try {
    checkBrowser();
  } catch (problem) {
    showNotice(problem, "problem");
  }
}

begin();

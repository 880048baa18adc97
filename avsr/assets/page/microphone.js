// Sound of the microphone as blocks of 16-bit samples, 16 kHz, mono, each with the time of its first sample.
// Runs in the browser's audio thread.

const TO_HZ = 16000;
const BLOCK = 320; // samples, 20 ms
const ZERO_CROSSINGS = 32; // length of the filter on each side
const PASSED = 0.94; // share of the band below the lower Nyquist frequency that passes

/** Band-limited resampling: a windowed sinc, one set of taps for each position between two input samples. */
class Resampler {
  constructor(fromHz) {
    const divisor = gcd(fromHz, TO_HZ);
    this.step = fromHz / divisor; // output k is at input k * step / phases
    this.phases = TO_HZ / divisor;
    const cutoff = 0.5 * PASSED * Math.min(1, TO_HZ / fromHz); // cycles an input sample
    this.half = Math.ceil(ZERO_CROSSINGS / (2 * cutoff));
    this.taps = Array.from({ length: this.phases }, (_, phase) => this.tapsAt(phase / this.phases, cutoff));
    this.past = new Float32Array(2 * this.half); // zeros before the first sample
    this.next = 0; // number of the next output
    this.seen = 0; // input samples so far
  }

  tapsAt(shift, cutoff) {
    const taps = new Float32Array(2 * this.half);
    let sum = 0;
    for (let i = 0; i < taps.length; i++) {
      const x = i - (this.half - 1) - shift; // in input samples, from the output's place
      const inside = Math.min(1, Math.abs(x) / this.half);
      const window = 0.42 + 0.5 * Math.cos(Math.PI * inside) + 0.08 * Math.cos(2 * Math.PI * inside);
      const phase = 2 * Math.PI * cutoff * x;
      taps[i] = window * (x === 0 ? 1 : Math.sin(phase) / phase);
      sum += taps[i];
    }
    return taps.map((tap) => tap / sum);
  }

  /** Calls give(sample, position), position in input samples since the first. */
  push(block, give) {
    const input = new Float32Array(this.past.length + block.length);
    input.set(this.past);
    input.set(block, this.past.length);
    const first = this.seen - this.past.length; // input[0] is this sample
    this.seen += block.length;
    for (;;) {
      const position = (this.next * this.step) / this.phases;
      const whole = Math.floor(position);
      if (whole + this.half >= this.seen) break;
      const taps = this.taps[(this.next * this.step) % this.phases];
      const start = whole - this.half + 1 - first;
      let sum = 0;
      for (let i = 0; i < taps.length; i++) sum += taps[i] * input[start + i];
      give(sum, position);
      this.next++;
    }
    this.past = input.slice(input.length - this.past.length);
  }
}

function gcd(a, b) {
  return b === 0 ? a : gcd(b, a % b);
}

class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = sampleRate === TO_HZ ? null : new Resampler(sampleRate);
    this.origin = 0; // frame of the context at the first sample
    this.block = new Int16Array(BLOCK);
    this.filled = 0;
    this.time = 0;
    this.passed = 0;
  }

  process([input]) {
    if (input.length === 0) return true; // nothing is connected at the moment
    // Computed for each block: while the microphone is changed no samples come, and only the time shows the gap.
    this.origin = currentFrame - this.passed;
    let mono = input[0];
    if (input.length > 1) mono = mono.map((_, i) => input.reduce((sum, channel) => sum + channel[i], 0) / input.length);
    if (this.resampler) this.resampler.push(mono, (sample, position) => this.add(sample, position));
    else for (let i = 0; i < mono.length; i++) this.add(mono[i], this.passed + i);
    this.passed += mono.length;
    return true;
  }

  add(sample, position) {
    if (this.filled === 0) this.time = (this.origin + position) / sampleRate;
    this.block[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(32768 * sample)));
    if (this.filled < BLOCK) return;
    this.port.postMessage({ time: this.time, samples: this.block }, [this.block.buffer]);
    this.block = new Int16Array(BLOCK);
    this.filled = 0;
  }
}

registerProcessor("microphone", Microphone);

// Package perfmodel says how long one step of an engine takes. The mocker sleeps
// that long instead of computing, placement compares workers with it, scaling
// sizes a fleet by it.
//
// A Model answers for a Batch: the pieces of prompts computed in a step and the
// sequences that produce one token each. There are three:
//
//   - ClosedForm, six coefficients: prefill = a + b·new + c·new·context and
//     decode = d + e·sequences + f·kv tokens. Fit finds the coefficients from a
//     log of steps, Online follows them while an engine runs.
//   - Table, measured points with interpolation; it also reads what the profiler
//     of NVIDIA Dynamo writes (.npz and JSON).
//   - Polynomial, the built-in formula of that project's mocker.
//
// Preset names machines whose coefficients are measured or derived, each with
// its source.
//
// Laws. StepSeconds is at least MinStepSeconds, so simulated time always moves;
// it never falls when a count rises; it does not allocate. A model that would
// break a law cannot be made: its constructor or Validate refuses and names the
// coefficient or the cell. The package is pure: no I/O, clock, goroutine,
// randomness or log. Models do not change after they are made and may be shared;
// an Online belongs to one goroutine at a time.
//
// Units are part of names. Seconds are float64, tokens and sequences are counts.
package perfmodel

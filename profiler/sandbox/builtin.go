package sandbox

// playRuntime is the built-in minimal runtime: it starts when the extensions
// have registered, takes its init time, and answers each event with its
// payload. It talks to the environment without HTTP, so that it costs the
// subject neither CPU time nor a connection.
func (e *Env) playRuntime() {
	select {
	case <-e.registered:
	case <-e.initDone:
		return
	}
	start := monotonic()
	e.mu.Lock()
	if e.runtime.times.Released == 0 {
		e.runtime.times.Released = start
	}
	e.mu.Unlock()
	if e.config.RuntimeInit > 0 && sleepUntil(e.ctx, start+int64(e.config.RuntimeInit)) != nil {
		return
	}
	for {
		if err := e.runtimeAsks(monotonic()); err != nil {
			return
		}
		event := e.await(e.ctx, e.runtime)
		if event == nil {
			return
		}
		now := monotonic()
		if e.runtimeResponds(now, stateResponse, response{body: event.body, contentType: contentJSON}) != nil {
			return
		}
	}
}

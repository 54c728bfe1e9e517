package boot

import (
	"context"
	"sync"
	"time"

	"github.com/initprof/initprof/extension/appsec"
	"github.com/initprof/initprof/extension/proxy"
)

// How long a flush waits for the firewall, whose rules take a second to compile on
// the smallest functions, and the last one, which has little time; and before that
// for the answer of an invocation whose span may be there already.
const (
	settleLimit     = 2 * time.Second
	lastSettleLimit = 300 * time.Millisecond
	answerLimit     = 100 * time.Millisecond
)

// watched is the invocation that the proxy saw begin.
type watched struct {
	mu         sync.Mutex
	requestID  string
	inspection *appsec.Inspection
	answered   chan struct{} // nil without an inspection
}

// startProxy listens where AppSec wants to see the runtime's requests.
func (e *extension) startProxy() error {
	at, err := proxy.Wanted(e.opts.Getenv)
	if err != nil || at == "" {
		return err
	}
	return span("runtime_api_proxy", func() error {
		e.proxy, err = proxy.Listen(at, e.opts.Getenv("AWS_LAMBDA_RUNTIME_API"), e, e.log)
		return err
	})
}

// startAppSec starts the firewall. Without h3 INIT waits until its rules are
// compiled; with it, they are compiled from the first next on, since two programs
// that start at once hold each other up. What goes wrong is logged, and costs
// nothing but what would have been found.
func (e *extension) startAppSec(ctx context.Context) {
	if !e.config.AppSec {
		return
	}
	helper := e.opts.Helper
	if helper == "" {
		helper = appsec.HelperPath(e.opts.Program)
	}
	options := appsec.Options{
		Helper: helper, Rules: e.config.AppSecRules, Budget: e.config.AppSecBudget, Log: e.log,
	}
	if e.changes.H3 {
		options.After = e.asked
	}
	waf := appsec.Start(options)
	e.waf.Store(waf)
	if !e.changes.H3 {
		_ = waf.Ready(ctx)
	}
	if e.proxy == nil {
		e.log.Infof("appsec: AWS_LAMBDA_EXEC_WRAPPER is not %s: only events that a library hands over are inspected", proxy.Wrapper)
	}
}

func (e *extension) closeAppSec() {
	_ = e.proxy.Close()
	e.waf.Load().Close()
}

// inspect is the lifecycle end point's way to the firewall.
func (e *extension) inspect(event []byte) func(requestID string, answer []byte) {
	if i := e.waf.Load().Inspect(event); i != nil {
		return i.Finish
	}
	return nil
}

// Event makes the extension the watcher of the proxy.
func (e *extension) Event(requestID string, event []byte) {
	waf := e.waf.Load()
	if waf == nil { // INIT has not come that far: no event of the environment's
		return
	}
	i := waf.Inspect(event)
	w := &e.watched
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end()
	w.requestID, w.inspection = requestID, i
	if i != nil {
		w.answered = make(chan struct{})
	}
}

// end lets go of the invocation.
func (w *watched) end() {
	if w.answered != nil {
		close(w.answered)
	}
	w.inspection, w.answered = nil, nil
}

// Answer makes the extension the watcher of the proxy.
func (e *extension) Answer(requestID string, body []byte) {
	if e.waf.Load() == nil {
		return
	}
	w := &e.watched
	w.mu.Lock()
	if w.requestID == requestID {
		w.inspection.Finish(requestID, body)
		w.end()
	}
	w.mu.Unlock()
	if !e.config.LogsEnabled { // see endSpan
		e.invocationEnds(requestID, 0)
	}
}

// settle waits until the spans that a flush takes can have their tags.
func (e *extension) settle(ctx context.Context, last bool) {
	waf := e.waf.Load()
	if waf == nil {
		return
	}
	limit := settleLimit
	if last {
		limit = lastSettleLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	e.watched.mu.Lock()
	answered := e.watched.answered
	e.watched.mu.Unlock()
	if answered != nil {
		select {
		case <-answered:
		case <-time.After(answerLimit):
		case <-ctx.Done():
		}
	}
	waf.Settle(ctx)
}

// spanTags is what the firewall has to say of a request.
func (e *extension) spanTags(requestID string) (map[string]string, map[string]float64) {
	tags, _ := e.waf.Load().Take(requestID)
	return tags.Meta, tags.Metrics
}

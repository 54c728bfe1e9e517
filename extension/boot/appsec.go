package boot

import (
	"context"
	"sync"
	"time"

	"github.com/initprof/initprof/extension/appsec"
	"github.com/initprof/initprof/extension/proxy"
)

// settleLimit is how long a flush waits for the firewall.
const settleLimit = time.Second

// watched is the invocation that the proxy saw begin.
type watched struct {
	mu         sync.Mutex
	requestID  string
	inspection *appsec.Inspection
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
	i := e.waf.Load().Inspect(event)
	e.watched.mu.Lock()
	defer e.watched.mu.Unlock()
	e.watched.requestID, e.watched.inspection = requestID, i
}

// Answer makes the extension the watcher of the proxy.
func (e *extension) Answer(requestID string, body []byte) {
	e.watched.mu.Lock()
	i := e.watched.inspection
	if e.watched.requestID != requestID {
		i = nil
	}
	e.watched.inspection = nil
	e.watched.mu.Unlock()
	i.Finish(requestID, body)
}

// settle waits until the spans that a flush takes can have their tags.
func (e *extension) settle(ctx context.Context) {
	if waf := e.waf.Load(); waf != nil {
		ctx, cancel := context.WithTimeout(ctx, settleLimit)
		defer cancel()
		waf.Settle(ctx)
	}
}

// spanTags is what the firewall has to say of a request.
func (e *extension) spanTags(requestID string) (map[string]string, map[string]float64) {
	tags, _ := e.waf.Load().Take(requestID)
	return tags.Meta, tags.Metrics
}

package sandbox

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
)

// Error types of the Extensions API (RIE: internal/lambda/rapi/handler).
const (
	errMissingIdentifier  = "Extension.MissingExtensionIdentifier"
	errInvalidIdentifier  = "Extension.InvalidExtensionIdentifier"
	errUnknownIdentifier  = "Extension.UnknownExtensionIdentifier"
	errInvalidName        = "Extension.InvalidExtensionName"
	errRegistrationClosed = "Extension.RegistrationClosed"
	errInvalidState       = "Extension.InvalidExtensionState"
	errMissingHeader      = "Extension.MissingHeader"
	errTooManyExtensions  = "Extension.TooManyExtensions"
	errInvalidEventType   = "Extension.InvalidEventType"
	errInvalidFormat      = "InvalidRequestFormat"
)

const (
	headerName       = "Lambda-Extension-Name"
	headerIdentifier = "Lambda-Extension-Identifier"
	headerErrorType  = "Lambda-Extension-Function-Error-Type"
	headerFeature    = "Lambda-Extension-Accept-Feature"
)

// register is POST /2020-01-01/extension/register.
func (e *Env) register(c *call) *reply {
	name := c.Header.Get(headerName)
	if name == "" {
		return forbid(errInvalidName, "Empty extension name")
	}
	events, refusal := c.registration()
	if refusal != nil {
		return refusal
	}

	e.mu.Lock()
	defer e.mu.Unlock()
	p, refusal := e.registrantLocked(name, events)
	if refusal != nil {
		return refusal
	}
	e.log.attribute(c.entry, p.name)
	for _, event := range events {
		if event != eventInvoke && event != eventShutdown {
			return forbid(errInvalidEventType, "%s: ErrorInvalidEventType", event)
		}
	}
	if err := p.machine.to(stateRegistered); err != nil {
		return forbid(errInvalidState, "%s", explain(err, "extension "+name))
	}
	p.events = events
	p.times.Registered = c.received
	if p.internal {
		e.extensions = append(e.extensions, p)
	} else if p.name != name {
		e.warnLocked("extension %s registered as %q; Lambda would refuse it: the name must be the executable's file name", p.name, name)
	}
	e.beginInitLocked(c.received) // where the caller did not announce the release
	e.advanceRegistrationLocked()

	body := registerResponse{FunctionName: e.config.FunctionName, FunctionVersion: e.config.FunctionVersion, Handler: e.config.Handler}
	for feature := range strings.SplitSeq(c.Header.Get(headerFeature), ",") {
		if strings.TrimSpace(feature) == "accountId" {
			body.AccountID = e.config.AccountID
		}
	}
	answer := jsonReply(http.StatusOK, body)
	answer.header = [][2]string{{headerIdentifier, p.id}}
	return answer
}

// registration decodes the body of a register.
func (c *call) registration() (events []string, refusal *reply) {
	body, refusal := c.readBody()
	if refusal != nil {
		return nil, refusal
	}
	var request struct {
		Events            []string `json:"events"`
		ConfigurationKeys []string `json:"configurationKeys"`
	}
	err := json.Unmarshal(body, &request)
	if err == nil && len(request.ConfigurationKeys) > 0 {
		err = errors.New("configurationKeys are deprecated; use environment variables instead")
	}
	if err != nil {
		return nil, forbid(errInvalidFormat, "%s", err)
	}
	return request.Events, nil
}

// registrantLocked finds the extension that registers under a name: an expected
// one; in its place the first that is missing, unless names are strict; else
// one inside the runtime's process.
func (e *Env) registrantLocked(name string, events []string) (*process, *reply) {
	if p := e.external(name); p != nil {
		return p, nil
	}
	for _, p := range e.extensions {
		if p.name == name {
			return nil, forbid(errInvalidState, "Extension with this name already registered")
		}
	}
	for _, p := range e.extensions {
		if p.registered() || p.exited {
			continue
		}
		if !e.config.StrictNames {
			return p, nil
		}
		// Lambda takes it for an internal extension: it refuses SHUTDOWN, and
		// otherwise waits for the external one until INIT times out. But no
		// runtime runs yet, so nothing internal can be there: refuse at once.
		if refusal := refuseInternal(events); refusal != nil {
			return nil, refusal
		}
		return nil, forbid(errInvalidName, "Extension name %s is not the file name of an extension", name)
	}
	if refusal := refuseInternal(events); refusal != nil {
		return nil, refusal
	}
	if e.runtime.times.FirstNext != 0 || e.phase.at != phaseInit && e.phase.at != phaseCreated {
		return nil, forbid(errRegistrationClosed, "Extension registration closed already")
	}
	if len(e.extensions) >= maxExtensions {
		return nil, forbid(errTooManyExtensions, "Extension limit (%d) reached", maxExtensions)
	}
	p := newProcess(strings.Clone(name), extensionTable)
	p.internal = true
	return p, nil
}

// refuseInternal refuses what an extension inside the runtime cannot ask for.
func refuseInternal(events []string) *reply {
	for _, event := range events {
		switch event {
		case eventInvoke:
		case eventShutdown:
			return forbid(errInvalidEventType, "%s: ShutdownEventNotSupportedForInternalExtension", event)
		default:
			return forbid(errInvalidEventType, "%s: ErrorInvalidEventType", event)
		}
	}
	return nil
}

// advanceRegistrationLocked opens the way for the runtime once all external
// extensions have registered.
func (e *Env) advanceRegistrationLocked() {
	for _, p := range e.extensions {
		if !p.registered() {
			return
		}
	}
	select {
	case <-e.registered:
	default:
		close(e.registered)
	}
}

// identifyLocked finds the extension that a request's identifier belongs to.
func (e *Env) identifyLocked(c *call) (*process, *reply) {
	id := c.Header.Get(headerIdentifier)
	switch {
	case id == "":
		return nil, forbid(errMissingIdentifier, "Missing %s header", headerIdentifier)
	case !isUUID(id):
		return nil, forbid(errInvalidIdentifier, "Invalid %s", headerIdentifier)
	}
	id = strings.ToLower(id)
	p := e.byID(id)
	if p == nil {
		return nil, forbid(errUnknownIdentifier, "Unknown extension %s", id)
	}
	e.log.attribute(c.entry, p.name)
	return p, nil
}

// extensionNext is GET /2020-01-01/extension/event/next.
func (e *Env) extensionNext(c *call) *reply {
	e.mu.Lock()
	p, refusal := e.identifyLocked(c)
	if refusal == nil {
		if err := p.machine.to(stateReady); err != nil {
			refusal = forbid(errInvalidState, "%s", explain(err, "extension "+p.id))
		}
	}
	if refusal != nil {
		e.mu.Unlock()
		return refusal
	}
	if p.times.FirstNext == 0 {
		p.times.FirstNext = c.received
		e.advanceInitLocked()
	}
	e.asksNextLocked(p, c.received)
	e.mu.Unlock()

	event := e.await(c.Context(), p)
	if event == nil {
		return nil
	}
	return &reply{status: http.StatusOK, header: event.header, body: event.body, since: event.posted}
}

// extensionInitError is POST /2020-01-01/extension/init/error.
func (e *Env) extensionInitError(c *call) *reply {
	return e.extensionError(c, stateInitError, errorExtensionInit)
}

// extensionExitError is POST /2020-01-01/extension/exit/error.
func (e *Env) extensionExitError(c *call) *reply {
	return e.extensionError(c, stateExitError, errorExtensionExit)
}

// extensionError takes the report of an extension that gives up. Its body is
// free text for people and is not kept.
func (e *Env) extensionError(c *call, to state, errorType string) *reply {
	e.mu.Lock()
	p, refusal := e.identifyLocked(c)
	e.mu.Unlock()
	if refusal != nil {
		if c.Header.Get(headerIdentifier) != "" && isUUID(c.Header.Get(headerIdentifier)) {
			refusal = forbid(errUnknownIdentifier, "Unknown %s", headerIdentifier)
		}
		return refusal
	}
	reported := c.Header.Get(headerErrorType)
	if reported == "" {
		return forbid(errMissingHeader, "%s not found", headerErrorType)
	}
	if _, refusal := c.readBody(); refusal != nil {
		return refusal
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := p.machine.to(to); err != nil {
		return forbid(errInvalidState, "%s", explain(err, "extension "+p.id))
	}
	if p.errorType == "" {
		p.errorType = strings.Clone(reported)
	}
	if e.phase.at != phaseShutdown && e.phase.at != phaseClosed {
		e.failLocked(&failure{
			status: InitReported, process: p.name, errorType: errorType, reported: p.errorType,
			message: title(p.name) + " reported " + string(to) + " " + p.errorType,
		})
	}
	return accepted()
}

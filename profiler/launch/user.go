package launch

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
)

// User is who the processes of a box run as.
type User struct {
	Name   string
	Home   string
	UID    uint32
	GID    uint32
	Groups []uint32
}

// LookupUser finds a user by name or number. The empty name is the caller, who
// behind sudo is the user that called sudo.
func LookupUser(name string) (*User, error) {
	if name == "" {
		name = os.Getenv("SUDO_UID")
		if name == "" || os.Geteuid() != 0 {
			name = strconv.Itoa(os.Getuid())
		}
	}
	found, err := user.Lookup(name)
	if err != nil {
		if found, err = user.LookupId(name); err != nil {
			uid, numErr := strconv.ParseUint(name, 10, 32)
			if numErr != nil {
				return nil, fmt.Errorf("no user %q on this machine", name)
			}
			// A number without an entry in passwd, as in containers.
			return &User{Name: name, Home: "/", UID: uint32(uid), GID: uint32(uid)}, nil
		}
	}
	return asUser(found)
}

func asUser(u *user.User) (*User, error) {
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user ID %q: %w", u.Uid, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("group ID %q: %w", u.Gid, err)
	}
	known := &User{Name: u.Username, Home: u.HomeDir, UID: uint32(uid), GID: uint32(gid)}
	groups, err := u.GroupIds()
	if err != nil { // no group file: the primary group alone
		return known, nil
	}
	for _, g := range groups {
		if id, err := strconv.ParseUint(g, 10, 32); err == nil {
			known.Groups = append(known.Groups, uint32(id))
		}
	}
	return known, nil
}

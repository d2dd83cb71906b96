package loop

import "time"

// maxLends bounds the requests that KV is lent for at once; beyond it nothing is lent to
// further ones, which compute.
const maxLends = 64

// maxHold bounds how long the scheduler keeps blocks for which Loans say when they may be
// used again; then they may be, whoever reads them still.
const maxHold = 24 * time.Hour

package loop

import "time"

// maxHold bounds how long the scheduler keeps blocks for which Loans say when they may be
// used again; then they may be, whoever reads them still.
const maxHold = 24 * time.Hour

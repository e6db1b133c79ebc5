package chain

import "crypto/sha256"

// Sum is the SHA-256 of the object file of the programs: what is counted of a packet holds their instructions.
func Sum() [sha256.Size]byte { return sha256.Sum256(_ChainBytes) }

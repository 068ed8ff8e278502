package journal

func appendUntilKilled(string) int { return 0 }

"""What a run will take, from its settings alone: parameters, arithmetic, memory, storage and time."""

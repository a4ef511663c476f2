"""What tests share: real servers on free ports, processes, and waiting without sleeping."""

"""The demo's tiny PerceptionLM; its weights are in `demo/weights`.

    architecture      configuration, tokenizer and processor
    evaluate          accuracy on worlds that it has not seen
    muon              the optimiser of its matrices
    start_weights     where training begins
    token_labels      what each visual token shows, for the guided part of training
    train             the training, stage by stage
    training_batches  batches of questions
    training_data     rendered worlds kept on disk
    training_losses   losses of the guided part
    training_network  the network with its extra heads
    vocabulary        colours, shapes, actions, places

Importing the package imports none of its modules.
"""

def test_it(world):
    from featstore.report.reproduction import reproduction_text

    print(reproduction_text(world.result))
    for p in world.result.figures:
        print(p.file, p.title)
